"""Edges of images: a soft map for the built-in generator, Canny's binary one for ControlNet."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def edge_map(x: Tensor) -> Tensor:
    """Return the magnitude of the gradient with Sobel's filters, channel by channel.

    Parameters
    ----------
    x : tensor of shape (n_samples, C, H, W)

    Returns
    -------
    tensor of shape (n_samples, C, H, W)
        In units of intensity: a step of height 1 has edges of 1/2 on both sides.
    """
    horizontal, vertical = _sobel(x)
    return (horizontal.square() + vertical.square()).sqrt()


def canny(x: Tensor, low: float = 75.0, high: float = 75.0) -> Tensor:
    """Detect edges: gradient, thinning across the edge, two thresholds.

    Parameters
    ----------
    x : tensor of shape (n_samples, 1, H, W)
        Grey levels from 0 to 255.
    low, high : float
        Thresholds for the gradient ``|dx| + |dy|`` with Sobel's unnormalised filters, as in OpenCV.
        Pixels above `high` are edges, and so are connected pixels above `low`.

    Returns
    -------
    bool tensor of shape (n_samples, 1, H, W)

    References
    ----------
    .. [1] Canny. A Computational Approach to Edge Detection. IEEE PAMI, 1986.
    """
    horizontal, vertical = (8 * part for part in _sobel(x))
    size = horizontal.abs() + vertical.abs()
    ridge = _is_ridge(size, horizontal, vertical)
    weak, edges = ridge & (size > low), ridge & (size > high)
    while True:  # edges grow along connected weak pixels
        grown = weak & (F.max_pool2d(edges.float(), 3, stride=1, padding=1) > 0)
        if torch.equal(grown, edges):
            return edges
        edges = grown


def _sobel(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return horizontal and vertical derivatives with Sobel's filters, divided by 8."""
    kernel = x.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]) / 8
    n_channels = x.shape[1]
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    filters = (kernel.expand(n_channels, 1, 3, 3), kernel.T.expand(n_channels, 1, 3, 3))
    horizontal, vertical = (F.conv2d(padded, f, groups=n_channels) for f in filters)
    return horizontal, vertical


def _is_ridge(size: Tensor, horizontal: Tensor, vertical: Tensor) -> Tensor:
    """Mark pixels whose gradient is not exceeded by its two neighbours across the edge."""
    angle = torch.atan2(vertical, horizontal) % torch.pi
    direction = (angle / (torch.pi / 4)).round().long() % 4  # 0, 45, 90 and 135 degrees
    padded = F.pad(size, (1, 1, 1, 1))
    height, width = size.shape[2:]
    marks = torch.zeros_like(size, dtype=torch.bool)
    for k, (dy, dx) in enumerate([(0, 1), (1, 1), (1, 0), (1, -1)]):
        ahead = padded[:, :, 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]
        behind = padded[:, :, 1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        marks |= (direction == k) & (size > behind) & (size >= ahead)
    return marks
