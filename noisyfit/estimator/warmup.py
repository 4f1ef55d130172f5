"""When cross-entropy ends and a method begins, and what is known about the labels by then."""

from __future__ import annotations

from collections.abc import Sequence
from math import nan
from typing import Any

import torch
from torch import Tensor

from noisyfit.data.training import TrainingData
from noisyfit.estimator.pilot import PILOT_MINIMUM, pilot_of
from noisyfit.exceptions import warn
from noisyfit.nn.beliefs import refurbish
from noisyfit.nn.losses import cross_entropy
from noisyfit.nn.transition import posterior

CORRECTED = ", corrected for how classes are mistaken for each other,"
TEMPERATURE = 0.3  # of predictions of labels that were trained on
PILOT_SHARE = 0.25  # in the beliefs of a method


class WarmUp:
    """Epochs on the given labels, before a method trusts its own predictions.

    How long a network learns before it memorises depends on the data: five epochs on one table,
    all epochs on another. What has not been learned from the labels by then is lost to a method,
    which confirms its own mistakes. A pilot (`noisyfit.estimator.pilot`) finds out: networks
    trained on one half of the rows predict the other half. If they predict worse at the end than
    before, the method begins after their best epoch. On tables of many classes that may not show;
    if networks fit more of the labels that they see than are right, by the matrix below, the method
    begins when they first do. Otherwise the networks are still learning from the labels, and the
    warm-up lasts to the end.

    The pilot's predictions also show which classes are mistaken for which, and how often
    (`noisyfit.nn.transition`). From then on a given label stands for the probabilities of the true
    classes, given the label and a prediction: the network's own during the warm-up, the pilot's
    afterwards. In the warm-up this is the forward correction of [1]_ with a transition matrix
    estimated out of sample.

    A number of epochs set by the user applies instead, and then there is no pilot.

    A method inherits from this class before the common base.

    References
    ----------
    .. [1] Patrini, Rozza, Menon, Nock and Qu. Making Deep Neural Networks Robust to Label Noise: a
       Loss Correction Approach. CVPR, 2017. arXiv:1609.03683
    """

    warmup_epochs: int | None
    warmup_epochs_: int
    max_epochs_: int
    state_: Any
    history_: Any
    _network: Any
    _descend: Any

    def _whole_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        state: dict[str, Tensor] = super()._whole_state(n, n_classes)  # type: ignore[misc]
        n_piloted = n if self.warmup_epochs is None else 0
        return state | {
            "first_epoch": torch.tensor(-1),  # after the warm-up
            "has_pilot": torch.tensor(False),
            "pilot_end": torch.tensor(0),
            "transition": torch.eye(n_classes),
            "pilot_beliefs": torch.full((n_piloted, n_classes), 1 / n_classes),
        }

    def _warming_up(self, data: TrainingData, epoch: int) -> bool:
        """Whether an epoch belongs to the warm-up."""
        state = self.state_
        if epoch == 0 and self._asks_a_pilot(data):
            self._ask_a_pilot(data)
        n_epochs = state.pilot_end if state.has_pilot else self.warmup_epochs_
        if state.first_epoch < 0 and epoch >= n_epochs:
            state.first_epoch.fill_(epoch)
        return bool(state.first_epoch < 0)

    def _warm_up(self, data: TrainingData, networks: Sequence[str] = ("module",)) -> None:
        """Train networks for one epoch on what the given labels stand for."""
        for idx, x, labels in data.batches("weak", labelled=True):
            for name in networks:
                logits = self._network(name)(x)
                self._descend(cross_entropy(logits, self._meant(data, idx, logits)).mean(), name)
            self._observe(idx, labels, logits)

    def _observe(self, idx: Tensor, labels: Tensor, logits: Tensor) -> None:
        """Note what the last network predicts for a batch of the warm-up."""

    def _conclude(self) -> None:
        self.warmup_epochs_ = self._length_of_warm_up()
        super()._conclude()  # type: ignore[misc]

    def _once_begun(self, values: Any) -> Any:
        """Return what the steps of the method have estimated, NaN if they never began."""
        return values if self.state_.first_epoch >= 0 else nan * values

    def _length_of_warm_up(self) -> int:
        """Return how many epochs it took; warn if it lasted to the end."""
        first_epoch = int(self.state_.first_epoch)
        if first_epoch >= 0:
            return first_epoch
        n_epochs = len(self.history_)
        if n_epochs == self.max_epochs_:
            warn(
                f"The warm-up should end before the last of {n_epochs} epochs, for the steps "
                "of the method to act. Got networks that predict held-out labels as well as ever: "
                f"they have not begun to memorise, and {type(self).__name__} was cross-entropy"
                f"{CORRECTED if self.state_.has_pilot else ''} to the end. If that is too careful, "
                "raise max_epochs or set warmup_epochs."
            )
        return n_epochs

    # ------------------------------------------------------------------------------- the pilot

    def _asks_a_pilot(self, data: TrainingData) -> bool:
        enough = int(data.has_label.sum()) >= PILOT_MINIMUM
        return self.warmup_epochs is None and enough

    def _ask_a_pilot(self, data: TrainingData) -> None:
        pilot = pilot_of(self, data)
        self.state_.has_pilot.fill_(True)
        self.state_.pilot_end.fill_(pilot.end)
        self.state_.transition.copy_(pilot.transition)
        self.state_.pilot_beliefs.copy_(pilot.beliefs)

    def _meant(self, data: TrainingData, idx: Tensor, logits: Tensor | None = None) -> Tensor:
        """Return what the given labels of some rows stand for, as targets of cross-entropy.

        Without a pilot, the labels themselves. Otherwise the probabilities of the
        true classes, (n_samples, n_classes), given the labels and the predictions of a network, or
        of the pilot once the method has begun.

        Parameters
        ----------
        data : TrainingData
        idx : Tensor of shape (n_samples,)
            Indices of the rows.
        logits : Tensor of shape (n_samples, n_classes), optional
            Needed in the warm-up.
        """
        if not self.state_.has_pilot:
            return data.targets(idx)
        if logits is None or self.state_.first_epoch >= 0:
            probs = self.state_.pilot_beliefs[idx]
        else:
            probs = logits.detach().float().softmax(1)
        return self._posterior(data, probs, idx)

    def _posterior(
        self, data: TrainingData, probs: Tensor, idx: Tensor | slice = slice(None)
    ) -> Tensor:
        """Return the probabilities of the true classes of rows, given their labels."""
        meant = posterior(probs, data.targets(idx), self.state_.transition)
        return refurbish(data.trusted[idx].to(meant.dtype), data.targets(idx), meant)

    def _with_pilot(self, probs: Tensor) -> Tensor:
        """Mix the beliefs of a method about all rows with the pilot's, which has not seen them."""
        if not self.state_.has_pilot:
            return probs
        return torch.lerp(probs, self.state_.pilot_beliefs, PILOT_SHARE)
