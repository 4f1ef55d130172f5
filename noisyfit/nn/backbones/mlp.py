"""The default network for tables."""

from torch import nn

__all__ = ["MLP"]


class MLP(nn.Sequential):
    """Fully connected network with batch normalisation.

    Parameters
    ----------
    n_features : int
        Number of columns; the input has shape (n_samples, n_features).
    n_classes : int
        Number of logits; the output has shape (n_samples, n_classes).
    width : int, default=128
        Units in each hidden layer, and dimensions of the embeddings.
    depth : int >= 0, default=2
        Number of hidden layers; 0 is logistic regression.
    dropout : float in [0, 1), default=0.0
        Fraction of hidden units dropped in training.
    """

    def __init__(
        self,
        n_features: int,
        n_classes: int,
        width: int = 128,
        depth: int = 2,
        dropout: float = 0.0,
    ) -> None:
        layers: list[nn.Module] = []
        for n_inputs in [n_features, *[width] * depth][:depth]:
            layers += [nn.Linear(n_inputs, width, bias=False), nn.BatchNorm1d(width), nn.ReLU()]
            if dropout > 0:
                layers.append(nn.Dropout(dropout))
        super().__init__(*layers, nn.Linear(width if depth else n_features, n_classes))
