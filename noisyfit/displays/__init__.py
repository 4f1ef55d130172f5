"""Pictures of what a fit has found, with the interface of scikit-learn's displays."""
