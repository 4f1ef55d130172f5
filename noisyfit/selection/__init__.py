"""One estimator that chooses among the others."""
