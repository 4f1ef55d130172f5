"""Mixtures of rows, which are harder to memorise than rows."""

import torch
from torch import Tensor


def mixup(x: Tensor, targets: Tensor, *, alpha: float = 4.0) -> tuple[Tensor, Tensor]:
    """Mix every sample and its target with another of the batch ([1]_).

    One coefficient from Beta(alpha, alpha) serves the whole batch; the larger share goes to the
    sample itself, which therefore keeps its place (Eq. 10 of [2]_). Random numbers come from the
    global generator of the device of `x`.

    Parameters
    ----------
    x : tensor of shape (n_samples, ...)
        Converted to float if it holds integers.
    targets : float tensor of shape (n_samples, n_classes)
        One distribution over the classes per sample.
    alpha : float > 0, default=4.0
        Larger values mix more evenly.

    Returns
    -------
    mixed_x : tensor of the shape of `x`
    mixed_targets : tensor of shape (n_samples, n_classes)

    References
    ----------
    .. [1] Zhang et al. mixup: Beyond Empirical Risk Minimization. ICLR, 2018. arXiv:1710.09412
    .. [2] Berthelot et al. MixMatch: A Holistic Approach to Semi-Supervised Learning. NeurIPS,
       2019. arXiv:1905.02249
    """
    x = x if x.is_floating_point() else x.float()
    concentration = torch.full((), float(alpha), device=x.device)
    # Validating the arguments would wait for the device.
    beta = torch.distributions.Beta(concentration, concentration, validate_args=False)
    share = beta.sample()
    other_share = torch.minimum(share, 1 - share)
    idx = torch.randperm(len(x), device=x.device)
    return (
        torch.lerp(x, x[idx], other_share.to(x.dtype)),
        torch.lerp(targets, targets[idx], other_share.to(targets.dtype)),
    )
