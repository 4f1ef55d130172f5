"""Losses that return one value per sample; the caller weights and averages them."""

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "clid",
    "confidence_regularizer",
    "contrastive",
    "cross_entropy",
    "early_learning_regularizer",
    "generalized_cross_entropy",
    "reliability_contrastive",
    "reverse_cross_entropy",
]

LOG_OF_ZERO = -4.0  # of the reverse cross-entropy
_DIRECT_ROWS = 1024  # above, all pairs at once cost more memory and more time
_BLOCK_SIZE = 2**20  # similarities held at a time


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy of every sample, in nats and in single precision.

    Parameters
    ----------
    logits : tensor of shape (n_samples, n_classes)
    targets : int64 tensor of shape (n_samples,) or tensor of shape (n_samples, n_classes)
        Class indices, or one distribution over the classes per sample.

    Returns
    -------
    tensor of shape (n_samples,)
        At least 0 for class indices, at least the entropy of the target otherwise.
    """
    targets = targets if targets.ndim == 1 else targets.float()
    return F.cross_entropy(logits.float(), targets, reduction="none")


def confidence_regularizer(logits: Tensor, prior: Tensor) -> Tensor:
    """Log-probability of a label drawn from the prior, on average: low for confident predictions.

    Added to the cross-entropy with a positive weight, it rewards predictions that commit to one
    class, and so lets the network ignore labels that it finds implausible ([1]_; Eq. 9 of [2]_).

    Parameters
    ----------
    logits : tensor of shape (n_samples, n_classes)
    prior : tensor of shape (n_classes,)
        Class frequencies of the labels; sums to 1.

    Returns
    -------
    tensor of shape (n_samples,)
        In nats, in ``[log(1e-8), 0]``.

    Notes
    -----
    The exact logarithm (``log_softmax``) has no lower bound: minimising it drives the logits apart
    until they overflow. Adding 1e-8 to the probabilities bounds the term and its gradient.

    References
    ----------
    .. [1] Cheng et al. Learning with Instance-Dependent Label Noise: A Sample Sieve Approach.
       ICLR, 2021. arXiv:2010.02347
    .. [2] Kim et al. Learning with Noisy Labels: Interconnection of Two Expectation-Maximizations.
       2024. arXiv:2401.04390
    """
    probs = logits.float().softmax(dim=1)
    # A sum and not a matrix product: autocast would run the product in half precision.
    return (prior.float() * torch.log(probs + 1e-8)).sum(dim=1)


def early_learning_regularizer(logits: Tensor, targets: Tensor) -> Tensor:
    """Logarithm of the disagreement with earlier predictions: low where a network agrees.

    Added to the cross-entropy with a positive weight, it holds a network to what it believed before
    it memorised labels (Eq. 6 of [1]_).

    Parameters
    ----------
    logits : tensor of shape (n_samples, n_classes)
    targets : tensor of shape (n_samples, n_classes)
        Earlier predictions; rows sum to 1 or less.

    Returns
    -------
    tensor of shape (n_samples,)
        In nats, in ``[log(1e-4), 0]``.

    Notes
    -----
    The agreement is bounded by 1 - 1e-4, because the logarithm has no lower bound as the agreement
    goes to 1.

    References
    ----------
    .. [1] Liu et al. Early-Learning Regularization Prevents Memorization of Noisy Labels. NeurIPS,
       2020. arXiv:2007.00151
    """
    agreement = (logits.float().softmax(dim=1) * targets.float()).sum(dim=1)
    return torch.log1p(-agreement.clamp(max=1 - 1e-4))


def generalized_cross_entropy(logits: Tensor, labels: Tensor, *, q: float = 0.7) -> Tensor:
    """``(1 - p ** q) / q`` for the probability p of every label (Eq. 6 of [1]_).

    Between the cross-entropy, its limit as q goes to 0, and the mean absolute error at q = 1, which
    ignores labels that the network finds implausible.

    Parameters
    ----------
    logits : tensor of shape (n_samples, n_classes)
    labels : int64 tensor of shape (n_samples,) or tensor of shape (n_samples, n_classes)
        Classes, or distributions over them, under which the loss is a mean.
    q : float in (0, 1], default=0.7

    Returns
    -------
    tensor of shape (n_samples,)
        In ``[0, 1 / q]``.

    References
    ----------
    .. [1] Zhang and Sabuncu. Generalized Cross Entropy Loss for Training Deep Neural Networks with
       Noisy Labels. NeurIPS, 2018. arXiv:1805.07836
    """
    # exp(q log p) and not p ** q, whose derivative is infinite at p = 0.
    if labels.ndim == 2:
        return (labels * -torch.expm1(q * logits.float().log_softmax(1)) / q).sum(1)
    log_p = -cross_entropy(logits, labels)
    return -torch.expm1(q * log_p) / q


def reverse_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of every label under the prediction, with log 0 set to -4 ([1]_).

    Parameters
    ----------
    logits : tensor of shape (n_samples, n_classes)
    labels : int64 tensor of shape (n_samples,) or tensor of shape (n_samples, n_classes)
        Classes, or distributions over them, under which the loss is a mean.

    Returns
    -------
    tensor of shape (n_samples,)
        In nats, in ``[0, 4]``: four times the probability of all other classes.

    References
    ----------
    .. [1] Wang et al. Symmetric Cross Entropy for Robust Learning with Noisy Labels. ICCV, 2019.
       arXiv:1908.06112
    """
    if labels.ndim == 2:
        return LOG_OF_ZERO * (labels * (logits.float().softmax(1) - 1)).sum(1)
    return LOG_OF_ZERO * torch.expm1(-cross_entropy(logits, labels))


def contrastive(first: Tensor, second: Tensor, *, temperature: float = 0.05) -> Tensor:
    """Contrastive loss (NT-Xent) of every row of two views of a batch.

    Each row must recognise its other view among the remaining rows of both views (Eq. 1 of [1]_).

    Parameters
    ----------
    first, second : tensors of shape (n_samples, n_dims)
        Projections of the two views, row by row; this function normalises them to unit length.
    temperature : float > 0, default=0.05
        Divisor of the cosine similarities.

    Returns
    -------
    tensor of shape (2 * n_samples,)
        In nats, the rows of `first` before those of `second`. Zero for a single sample, which has
        nothing to be told apart from.

    References
    ----------
    .. [1] Chen et al. A Simple Framework for Contrastive Learning of Visual Representations.
       ICML, 2020. arXiv:2002.05709
    """
    n = len(first)
    other_view = torch.arange(2 * n, device=first.device).roll(n)
    # Half precision cannot resolve similarities divided by a small temperature.
    with torch.autocast(first.device.type, enabled=False):
        rows = _unit_length(torch.cat([first, second]).float())
        similarity = _similarity_to_others(rows, temperature)
        return F.cross_entropy(similarity, other_view, reduction="none")


def clid(
    embeddings: Tensor,
    probabilities: Tensor,
    *,
    temperature: float = 0.5,
    normalizer_grad: bool = False,
    n_neighbors: int | None = None,
) -> Tensor:
    """Cross-layer information divergence of every row of a batch; needs no labels.

    Two rows with similar embeddings should also have similar predictions. Each row has two
    distributions over the rows of the batch, including itself: the softmax of the cosines of the
    embeddings (Eq. 7 of [1]_), and the cosines of the predictions divided by their sum (Eq. 8). The
    value is the cross-entropy of the first with the second as its target (Eq. 9). The embeddings
    get no gradient.

    Parameters
    ----------
    embeddings : tensor of shape (n_samples, n_dims)
        The input of the network's last layer.
    probabilities : tensor of shape (n_samples, n_classes)
        Predicted distributions over the classes.
    temperature : float > 0, default=0.5
        Divisor of the cosines of the embeddings.
    normalizer_grad : bool, default=False
        Whether to differentiate the sum that divides the cosines of the predictions. The authors'
        code treats it as a constant. The values are the same.
    n_neighbors : int >= 1 or None, default=None
        Compare each row only with itself and with this many other rows, those whose predictions
        have the largest cosine with its own; both distributions sum to 1 over these (the sparse
        graph of [1]_, appendix D). None compares all pairs, as does the number of other rows.

    Returns
    -------
    tensor of shape (n_samples,)
        In nats, in ``[0, log(n_samples) + 2 / temperature]``. The mean is Eq. 9 with the factor
        1/m; the paper prints 1/m^2, but the authors' code divides by m. The values depend on the
        number of rows that are compared, so compare batches of equal size.

    Notes
    -----
    All-zero embeddings have cosine 0 with every row. An all-zero prediction has the value 0, no
    gradient, and no part in the values of the other rows.

    Negative cosines of signed embeddings are kept. The authors' code sets them to 0 before the
    softmax: for 100 rows of normal numbers in 8 dimensions it gives 4.68, this function 4.82.
    Behind a ReLU, as in the paper's networks, no cosine is negative.

    Above 1024 rows, memory is linear in the number of rows. The sum over pairs is then written as
    ``sum_j (q_i . q_j) (z_i . z_j) = q_i^T (Q^T Z) z_i``, and the logarithm of the softmax's
    denominator, which has no gradient, is computed for a block of rows at a time. This is exact.
    Neighbours are searched among all rows, a block at a time: the sums are shorter, but every pair
    is still compared once.

    References
    ----------
    .. [1] Hu et al. CLID-MU: Cross-Layer Information Divergence Based Meta Update Strategy for
       Learning with Noisy Labels. KDD, 2025. arXiv:2507.11807
    """
    dtype = torch.promote_types(embeddings.dtype, probabilities.dtype)
    dtype = torch.float64 if dtype == torch.float64 else torch.float32
    # Half precision cannot resolve similarities divided by a small temperature.
    with torch.autocast(embeddings.device.type, enabled=False):
        z, q = _unit_length(embeddings.detach().to(dtype)), _unit_length(probabilities.to(dtype))
        if n_neighbors is not None and n_neighbors < len(z) - 1:
            return _clid_of_neighbors(z, q, temperature, normalizer_grad, n_neighbors)
        if len(z) > _DIRECT_ROWS:
            return _clid_in_blocks(z, q, temperature, normalizer_grad)
        return _graph_divergence(z @ z.T, q @ q.T, temperature, normalizer_grad)


def _graph_divergence(
    similarity: Tensor, affinity: Tensor, temperature: float, normalizer_grad: bool
) -> Tensor:
    """Return Eq. 9 for every row from the cosines of embeddings and of predictions, (m, k)."""
    log_probs = (similarity / temperature).log_softmax(dim=1)
    normalizer = _clid_normalizer(affinity.sum(dim=1), normalizer_grad)
    return -(affinity * log_probs).sum(dim=1) / normalizer


def _clid_of_neighbors(
    z: Tensor, q: Tensor, temperature: float, normalizer_grad: bool, n_neighbors: int
) -> Tensor:
    """Compute `clid` with each row connected to itself and to its nearest predictions."""
    values = []
    for rows in torch.arange(len(z), device=z.device).split(max(1, _BLOCK_SIZE // len(z))):
        affinity = q[rows] @ q.T  # (b, m)
        closeness = affinity.detach().scatter(1, rows[:, None], torch.inf)  # itself comes first
        idx = closeness.topk(n_neighbors + 1, dim=1).indices
        similarity = (z[rows] @ z.T).gather(1, idx)
        graphs = similarity, affinity.gather(1, idx)
        values.append(_graph_divergence(*graphs, temperature, normalizer_grad))
    return torch.cat(values)


def _clid_in_blocks(z: Tensor, q: Tensor, temperature: float, normalizer_grad: bool) -> Tensor:
    """Compute `clid` of rows of unit length without a matrix of all pairs."""
    log_denominators = torch.cat(
        [
            (block @ z.T).div_(temperature).logsumexp(dim=1)
            for block in z.split(max(1, _BLOCK_SIZE // len(z)))
        ]
    )
    totals = q @ q.sum(dim=0)  # (m,), sum_j q_i . q_j
    agreement = (q * (z @ (q.T @ z).T)).sum(dim=1)  # (m,), q_i^T (Q^T Z) z_i
    # The first product is log_denominators only in value: a constant normalizer leaves a gradient.
    divergence = totals * log_denominators - agreement / temperature
    return divergence / _clid_normalizer(totals, normalizer_grad)


def _clid_normalizer(totals: Tensor, normalizer_grad: bool) -> Tensor:
    """Return the sums to divide by; 1 for an all-zero prediction, which agrees with no row."""
    totals = totals if normalizer_grad else totals.detach()
    return torch.where(totals > 0, totals, 1.0)


def reliability_contrastive(
    first: Tensor,
    second: Tensor,
    labels: Tensor,
    reliability: Tensor,
    *,
    temperature: float = 0.1,
) -> Tensor:
    """Supervised contrastive loss that weights a pair by the reliabilities of its rows.

    The weight of a pair is the product of the two reliabilities, and is large only if both are high
    (Eqs. 11 and 12 of [1]_). Where all are 1, it is plain supervised contrast, with the mean over a
    row's positives outside the logarithm (``L_out``, Eq. 2 of [2]_).

    Parameters
    ----------
    first, second : tensors of shape (n_samples, n_dims)
        Projections of the two views, row by row; this function normalises them to unit length.
    labels : integer tensor of shape (n_samples,)
        Class of each sample, given or guessed.
    reliability : tensor of shape (n_samples,)
        In [0, 1].
    temperature : float > 0, default=0.1
        Divisor of the cosine similarities.

    Returns
    -------
    tensor of shape (2 * n_samples,)
        In nats, the rows of `first` before those of `second`. Zero for a single sample.

    Notes
    -----
    The sum over a row's positives is one product with the weighted sum of its class; both views of
    a sample have the same class.

    References
    ----------
    .. [1] Holistic Reliability Propagation, 2026.
    .. [2] Khosla et al. Supervised Contrastive Learning. NeurIPS, 2020. arXiv:2004.11362
    """
    same = (labels[:, None] == labels).float()  # (B, B)
    with torch.autocast(first.device.type, enabled=False):
        rows = _unit_length(torch.cat([first, second]).float())  # (2B, d)
        log_total = _similarity_to_others(rows, temperature).logsumexp(dim=1)
        weights = reliability.float().repeat(2)
        weighted = weights[:, None] * rows
        of_class = (same @ torch.add(*weighted.chunk(2))).repeat(2, 1)
        attraction = (rows * (of_class - weighted)).sum(dim=1) / temperature
        mass = same @ weights.view(2, -1).sum(dim=0)
    mass, n_positives = mass.repeat(2) - weights, (2 * same.sum(dim=1) - 1).repeat(2)
    return weights * (mass * log_total - attraction) / n_positives


def _similarity_to_others(rows: Tensor, temperature: float) -> Tensor:
    """Return the cosines of rows of unit length by the temperature; with itself, -infinity."""
    return (rows @ (rows.T / temperature)).fill_diagonal_(-torch.inf)


def _unit_length(rows: Tensor) -> Tensor:
    """Divide rows by their norm; all-zero rows stay zeros and get no gradient."""
    norm = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / norm.masked_fill(norm <= 1e-6, torch.inf)
