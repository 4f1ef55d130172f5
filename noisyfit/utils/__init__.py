"""What every floor may use: checks of what users pass, files, devices, names."""
