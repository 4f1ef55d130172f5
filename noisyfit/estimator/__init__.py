"""Everything behind `fit`: scikit-learn's contract, skorch's engine, labels, checkpoints, files."""
