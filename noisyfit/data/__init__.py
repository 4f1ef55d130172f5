"""Rows and labels as methods see them: tensors on one device."""
