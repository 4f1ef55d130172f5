"""Fitted models as files: arrays, numbers and weights, never code."""
