"""Tensor-level building blocks: torch only, no scikit-learn."""
