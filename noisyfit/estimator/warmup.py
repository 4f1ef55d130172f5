"""When cross-entropy ends and a method begins, and what is known about the labels by then."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import nan
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from noisyfit.data.training import TrainingData
from noisyfit.estimator.pilot import run_pilot
from noisyfit.exceptions import warn
from noisyfit.nn.beliefs import given_probability
from noisyfit.nn.losses import cross_entropy
from noisyfit.nn.transition import posterior

PATIENCE = 3  # epochs without progress that end the warm-up of images
HELD_OUT_FRACTION = 0.05  # of the rows, while the warm-up waits for the end of learning
HELD_OUT_MINIMUM = 20  # rows; with fewer the likelihood says nothing
PILOT_MINIMUM = 100  # labelled rows
CORRECTED = ", corrected for how classes are mistaken for each other,"
LATEST = 0.5  # of the epochs; a network still learning from images by then does so to the end


class WarmUp:
    """Epochs on the given labels, before a method trusts its own predictions.

    How long a network learns before it memorises depends on the data: five epochs on one table,
    all epochs on another. What has not been learned from the labels by then is lost to a method,
    which confirms its own mistakes. The end of learning is therefore detected from predictions of
    held-out given labels:

    - Tables have a pilot (`noisyfit.estimator.pilot`): networks trained on one half of the rows
      predict the other half. If they predict worse at the end than before, the method begins after
      their best epoch. Their predictions also show which classes are mistaken for which, and how
      often (`noisyfit.nn.transition`). From then on a given label stands for the probabilities of
      the true classes, given the label and a prediction: the network's own during the warm-up, the
      pilot's afterwards. In the warm-up this is the forward correction of [1]_ with a transition
      matrix estimated out of sample.
    - Images, for which a pilot would cost too much, hold out a few rows. The method begins when
      the likelihood of their labels has stopped rising, if that is within the first half of the
      epochs.

    Otherwise the network is still learning from the labels, and the warm-up lasts to the end. A
    number of epochs set by the user applies to both, and then there is no pilot.

    A method inherits from this class before the common base.

    References
    ----------
    .. [1] Patrini, Rozza, Menon, Nock and Qu. Making Deep Neural Networks Robust to Label Noise: a
       Loss Correction Approach. CVPR, 2017. arXiv:1609.03683
    """

    warmup_epochs: int | None
    warmup_epochs_: int
    max_epochs_: int
    layout_: str
    state_: Any
    history_: Any
    _make_network: Any
    _make_optimizer: Any
    _predict: Any
    _network: Any
    _descend: Any

    def _whole_state(self, n: int, n_classes: int) -> dict[str, Tensor]:
        state: dict[str, Tensor] = super()._whole_state(n, n_classes)  # type: ignore[misc]
        watched = torch.rand(n) < HELD_OUT_FRACTION if self._watches(n) else torch.zeros(n)
        return state | {
            "first_epoch": torch.tensor(-1),  # after the warm-up
            "held_out": watched.bool(),
            "best_likelihood": torch.tensor(-torch.inf),
            "best_epoch": torch.tensor(0),
            "has_pilot": torch.tensor(False),
            "pilot_end": torch.tensor(0),
            "transition": torch.eye(n_classes),
            "pilot_beliefs": torch.full((n, n_classes), 1 / n_classes),
        }

    def _warming_up(self, data: TrainingData, epoch: int, beliefs: Tensor) -> bool:
        """Whether an epoch belongs to the warm-up.

        Parameters
        ----------
        data : TrainingData
        epoch : int
        beliefs : Tensor of shape (n_samples, n_classes)
            Predictions averaged over the epochs so far.
        """
        state = self.state_
        if epoch == 0 and self._asks_a_pilot(data):
            self._ask_a_pilot(data)
        if state.first_epoch < 0 and self._has_learnt(data, epoch, beliefs):
            state.first_epoch.fill_(epoch)
            state.held_out.fill_(False)
        return bool(state.first_epoch < 0)

    def _has_learnt(self, data: TrainingData, epoch: int, beliefs: Tensor) -> bool:
        state = self.state_
        if state.has_pilot:
            return epoch >= state.pilot_end
        if not self._watches(len(data)):
            return epoch >= self.warmup_epochs_
        if epoch >= LATEST * self.max_epochs_:
            state.held_out.fill_(False)  # still learning: use all labels to the end
            return False
        if epoch == 0:
            return False
        held_out = state.held_out & data.has_label
        given = given_probability(beliefs[held_out], data.labels[held_out])
        likelihood = given.clamp(min=1e-8).log().mean()
        if likelihood > state.best_likelihood:
            state.best_likelihood.copy_(likelihood)
            state.best_epoch.fill_(epoch)
        waited = epoch - int(state.best_epoch)
        return epoch >= self.warmup_epochs_ and waited >= PATIENCE

    def _watches(self, n: int) -> bool:
        """Whether rows are held out to detect the end of learning."""
        enough = self.layout_ != "table" and n * HELD_OUT_FRACTION >= HELD_OUT_MINIMUM
        return self.warmup_epochs is None and enough

    def _warm_up_weights(self, data: TrainingData) -> Tensor:
        """Return 1 for the rows whose labels are trained on, 0 for the others, (n_samples,)."""
        return (data.has_label & ~self.state_.held_out).float()

    def _warm_up(self, data: TrainingData, networks: Sequence[str] = ("module",)) -> None:
        """Train networks for one epoch on what the given labels stand for."""
        weights = self._warm_up_weights(data)
        for idx, x, labels in data.batches("weak", labelled=True):
            for name in networks:
                logits = self._network(name)(x)
                losses = cross_entropy(logits, self._meant(data, idx, logits))
                self._descend((weights[idx] * losses).mean(), name)
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
        return self.warmup_epochs is None and self.layout_ == "table" and enough

    def _ask_a_pilot(self, data: TrainingData) -> None:
        pilot = run_pilot(
            data,
            self.max_epochs_,
            partial(self._make_network, "module", independent=False),
            partial(self._make_optimizer, "module"),
            self._predict,
        )
        self.state_.has_pilot.fill_(True)
        self.state_.pilot_end.fill_(pilot.end)
        self.state_.transition.copy_(pilot.transition)
        self.state_.pilot_beliefs.copy_(pilot.beliefs)

    def _meant(self, data: TrainingData, idx: Tensor, logits: Tensor | None = None) -> Tensor:
        """Return what the given labels of some rows stand for, as targets of cross-entropy.

        Without a pilot, the labels themselves, (n_samples,). Otherwise the probabilities of the
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
            return data.labels[idx]
        if logits is None or self.state_.first_epoch >= 0:
            probs = self.state_.pilot_beliefs[idx]
        else:
            probs = logits.detach().float().softmax(1)
        return self._posterior(data, probs, idx)

    def _posterior(
        self, data: TrainingData, probs: Tensor, idx: Tensor | slice = slice(None)
    ) -> Tensor:
        """Return the probabilities of the true classes of rows, given their labels."""
        labels = data.labels[idx]
        targets = posterior(probs, labels, self.state_.transition)
        known = F.one_hot(labels.clamp(min=0), data.n_classes).to(targets.dtype)
        return torch.where(data.trusted[idx, None], known, targets)

    def _with_pilot(self, probs: Tensor) -> Tensor:
        """Return the mean of the beliefs of a method and the pilot about all rows."""
        return (probs + self.state_.pilot_beliefs) / 2 if self.state_.has_pilot else probs
