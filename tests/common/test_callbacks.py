"""Callbacks of skorch, optimizers and their learning rates."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skorch.callbacks import (
    BatchScoring,
    Callback,
    Checkpoint,
    EarlyStopping,
    EpochScoring,
    Freezer,
    GradientNormClipping,
    LoadInitState,
    LRScheduler,
    PrintLog,
    ProgressBar,
    TrainEndCheckpoint,
)

from noisyfit import SemiSupervisedClassifier
from noisyfit.noise import symmetric
from tests.common.zoo import Estimator, every_method, every_variant, every_way_to, of_the_base
from tests.helpers import (
    GradientNorms,
    LearningRates,
    Predictions,
    blobs,
    optimizers,
    quick,
    seeded_perceptron,
)


@every_way_to("_callbacks_stop")
def test_early_stopping__stops(cls: Estimator) -> None:
    X, y = blobs()
    never_better = EarlyStopping(
        "train_loss", patience=3, threshold=1e9, threshold_mode="abs", sink=lambda *_: None
    )
    clf = quick(cls, max_epochs=12, callbacks=[never_better]).fit(X, y)
    assert clf.n_iter_ == len(clf.history_) == 4
    assert clf.label_quality_.shape == (240,)


@every_way_to("_callbacks_stop", "_probabilities")
def test_early_stopping__load_best__predicts_with_the_best_epoch(cls: Estimator) -> None:
    X, y = blobs()
    seen = Predictions(X)
    stop = EarlyStopping(
        "train_loss",
        patience=3,
        threshold=1e9,
        threshold_mode="abs",
        load_best=True,
        sink=lambda *_: None,
    )
    clf = quick(cls, max_epochs=12, callbacks=[stop, seen]).fit(X, y)
    assert not np.array_equal(seen.probs[0], seen.probs[-1])
    np.testing.assert_array_equal(clf.predict_proba(X), seen.probs[0])


@every_way_to("_probabilities")
def test_checkpoint_callback__load_best__predicts_with_the_best_epoch(
    cls: Estimator, tmp_path: Path
) -> None:
    X, y = blobs()
    y = symmetric(y, 0.4, random_state=0).labels
    seen = Predictions(X)
    save_best = Checkpoint(dirname=str(tmp_path), load_best=True)
    clf = quick(
        cls, max_epochs=8, lr=0.3, validation_fraction=0.3, callbacks=[seen, save_best]
    ).fit(X, y)
    losses = json_history(tmp_path)
    best = int(np.argmin(losses))
    assert (tmp_path / "params.pt").exists()
    np.testing.assert_array_equal(clf.predict_proba(X), seen.probs[best])


def json_history(folder: Path) -> list[float]:
    return [row["valid_loss"] for row in json.loads((folder / "history.json").read_text())]


@of_the_base
def test_load_init_state__with_a_history__is_an_error_that_names_the_remedy(
    cls: Estimator, tmp_path: Path
) -> None:
    """It trained for no epoch: networks of an old fit, and the same quality for all rows."""
    X, y = blobs(60)
    quick(cls, callbacks=[TrainEndCheckpoint(dirname=str(tmp_path))]).fit(X, y)
    end = TrainEndCheckpoint(dirname=str(tmp_path))
    again = quick(cls, callbacks=[end, LoadInitState(end)])
    with pytest.raises(ValueError, match=r"empty history. Got one of 6 epochs.*checkpoint_dir"):
        again.fit(X, y)
    assert not hasattr(again, "module_")


@every_way_to("_probabilities")
def test_epoch_scoring__on_validation_rows__is_their_accuracy(cls: Estimator) -> None:
    X, y = blobs()
    y = np.array(["a", "b", "c"])[symmetric(y, 0.3, random_state=0).labels]
    score = EpochScoring("accuracy", lower_is_better=False, name="acc")
    clf = quick(cls, validation_fraction=0.25, callbacks=[score]).fit(X, y)
    assert clf.history_[:, "acc"] == pytest.approx(clf.history_[:, "valid_acc"])


@every_way_to("_probabilities")
def test_epoch_scoring__on_training_rows__is_their_accuracy(cls: Estimator) -> None:
    X, y = blobs()
    score = EpochScoring("accuracy", lower_is_better=False, name="acc", on_train=True)
    clf = quick(cls, callbacks=[score]).fit(X, y)
    assert clf.history_[-1]["acc"] == pytest.approx(clf.score(X, y))


@every_variant
def test_gradient_norm_clipping__bounds_every_step(cls: Estimator) -> None:
    X, y = blobs()
    free, clipped = GradientNorms(), GradientNorms()
    quick(cls, max_epochs=3, callbacks=[free]).fit(X, y)
    quick(cls, max_epochs=3, callbacks=[GradientNormClipping(0.01), clipped]).fit(X, y)
    assert max(free.norms) > 0.1
    assert len(clipped.norms) == len(free.norms)
    assert max(clipped.norms) <= 0.01 * 1.001


@every_method
def test_progress_bar__shows_the_batches(
    cls: Estimator, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = blobs(60)
    bar = ProgressBar(detect_notebook=False)
    quick(cls, batch_size=20, callbacks=[bar]).fit(X, y)
    assert "0/3" in capsys.readouterr().err
    n_batches = 8 if cls is SemiSupervisedClassifier else 3  # it repeats its rows
    assert bar.pbar_.n == n_batches


@of_the_base
def test_print_log__verbose__shows_a_row_an_epoch(
    cls: Estimator, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = blobs(60)
    quick(cls, max_epochs=4).fit(X, y)
    assert capsys.readouterr().out == ""
    quick(cls, max_epochs=4, verbose=1, validation_fraction=0.3).fit(X, y)
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) == 6
    for column in ("epoch", "train_loss", "valid_loss", "valid_acc", "dur"):
        assert column in lines[0]


@of_the_base
def test_print_log__of_the_user__works_beside_ours(cls: Estimator) -> None:
    X, y = blobs(60)
    lines: list[str] = []
    quick(cls, max_epochs=4, callbacks=[PrintLog(sink=lines.append)]).fit(X, y)
    assert len(lines) == 6


@of_the_base
def test_callbacks__parameters__are_routed(cls: Estimator) -> None:
    X, y = blobs(60)
    stop = EarlyStopping("train_loss", patience=5, threshold=1e9, threshold_mode="abs")
    clf = quick(cls, callbacks=[("stop", stop)], callbacks__stop__patience=2).fit(X, y)
    assert clf.n_iter_ == 3


@of_the_base
def test_callbacks__that_need_predictions_of_batches__are_an_error_at_fit(cls: Estimator) -> None:
    clf = quick(cls, callbacks=[BatchScoring("accuracy")])
    with pytest.raises(ValueError, match="BatchScoring.*EpochScoring"):
        clf.fit(*blobs(60))


# Optimizers and their learning rates.


@every_variant
def test_learning_rates_of_every_optimizer_follow_the_cosine(cls: Estimator) -> None:
    X, y = blobs(60)
    rates = LearningRates()
    clf = quick(cls, lr=0.2, callbacks=[rates]).fit(X, y)
    assert rates.rates.keys() == optimizers(clf).keys()
    assert rates.rates["optimizer_"][0] == 0.2
    for found in rates.rates.values():
        expected = [found[0] * (1 + np.cos(np.pi * e / 6)) / 2 for e in range(6)]
        assert found == pytest.approx(expected)


def _raise_then_fall(epoch: int) -> float:
    return [0.1, 0.5, 1.0, 1.0, 0.3, 0.1][min(epoch, 5)]


@every_way_to("_make_optimizer", "initialize_optimizer")
def test_lr_scheduler__moves_every_optimizer(cls: Estimator) -> None:
    X, y = blobs(60)
    rates = LearningRates()
    schedule = LRScheduler(policy=torch.optim.lr_scheduler.LambdaLR, lr_lambda=_raise_then_fall)
    clf = quick(cls, lr=0.2, callbacks=[schedule, rates]).fit(X, y)
    expected = [_raise_then_fall(epoch) for epoch in range(6)]
    assert rates.rates.keys() == optimizers(clf).keys()
    for name, found in rates.rates.items():
        first = optimizers(clf)[name].param_groups[0]["first_lr"]
        np.testing.assert_allclose(found, np.multiply(first, expected), rtol=1e-6)
    np.testing.assert_allclose(rates.rates["optimizer_"], np.multiply(0.2, expected), rtol=1e-6)


class RatesOfSteps(Callback):
    """The learning rate of every optimizer at every step, as a share of its own first one."""

    def on_train_begin(self, net: Any, **kwargs: Any) -> None:
        self.shares: list[list[float]] = []

    def on_grad_computed(self, net: Any, *args: Any, **kwargs: Any) -> None:
        groups = [optimizer.param_groups[0] for optimizer in optimizers(net).values()]
        self.shares.append([group["lr"] / group["first_lr"] for group in groups])


@every_way_to("_make_optimizer", "initialize_optimizer")
@pytest.mark.parametrize("step_every", ["batch", "epoch"])
def test_lr_scheduler__of_absolute_rates__is_the_same_for_every_optimizer(
    step_every: str, cls: Estimator
) -> None:
    """With OneCycleLR(max_lr=0.05) the second network had 1.24; within an epoch it stood still."""
    X, y = blobs(60)
    cyclic = {"base_lr": 0.02, "max_lr": 0.1, "step_size_up": 2, "cycle_momentum": False}
    schedule = LRScheduler(
        policy=torch.optim.lr_scheduler.CyclicLR, step_every=step_every, **cyclic
    )
    steps = RatesOfSteps()
    quick(cls, lr=0.2, batch_size=20, callbacks=[schedule, steps]).fit(X, y)
    shares = np.array(steps.shares)
    assert (shares.min(), shares.max()) == pytest.approx((0.1, 0.5))
    np.testing.assert_allclose(shares, shares[:, :1].repeat(shares.shape[1], 1), rtol=1e-12)


@every_method
def test_freezer__holds_the_named_layers(cls: Estimator) -> None:
    X, y = blobs(60)
    network = seeded_perceptron()
    freeze = Freezer("0.*")
    clf = quick(cls, module=network, callbacks=[freeze]).fit(X, y)
    first, last = clf.module_.network[0], clf.module_.network[2]
    assert torch.equal(first.weight, network.get_parameter("0.weight"))
    assert not torch.equal(last.weight, network.get_parameter("2.weight"))


@every_way_to("_make_optimizer", "initialize_optimizer")
def test_optimizer__groups__are_named_as_in_the_network(cls: Estimator) -> None:
    X, y = blobs(60)
    groups = [("0.*", {"lr": 0.0, "weight_decay": 0.0})]
    network = seeded_perceptron()
    clf = quick(cls, module=network, optimizer__param_groups=groups).fit(X, y)
    first, last = clf.module_.network[0], clf.module_.network[2]
    assert torch.equal(first.weight, network.get_parameter("0.weight"))
    assert not torch.equal(last.weight, network.get_parameter("2.weight"))


@of_the_base
@pytest.mark.parametrize(
    "settings",
    [
        {"callbacks": [Freezer(["0.*", "network.2.*"])]},
        {"callbacks": [("freeze", Freezer(lambda name: name == "network.2.weight"))]},
        {"optimizer__param_groups": [("network.2.*", {"lr": 0.1})]},
    ],
    ids=["callback", "function", "groups"],
)
def test_patterns_of_names__that_match_nothing__are_an_error(
    cls: Estimator, settings: dict[str, Any]
) -> None:
    clf = quick(cls, module=seeded_perceptron(), **settings)
    with pytest.raises(
        ValueError, match=r"must match names of parameters.*none of the \d+: 0\.weight"
    ):
        clf.fit(*blobs(60))
