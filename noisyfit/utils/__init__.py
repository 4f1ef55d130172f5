"""Utilities for every floor: checks of user input, files, devices, names."""
