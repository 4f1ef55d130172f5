"""Denoised labels, their anchor, the guard against collapse, and the switches."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from noisyfit import CrossEntropyClassifier, NoisyFitWarning, RLDClassifier, noise
from noisyfit.methods.rld import (
    Label,
    Noised,
    agreement,
    entropy,
    predicted_label,
    standardized_one_hot,
)
from noisyfit.metrics import detection_auroc
from noisyfit.nn.diffusion import label_contrastive
from tests.helpers import blobs, noisy_blobs

SEEDS = (0, 1, 2)
PUBLISHED: dict[str, Any] = {
    "anchor": None,
    "conditioning": None,
    "n_steps": 50,
    "t_max": 50,
    "rule": "ddpm_mean",
    "teacher_momentum": 0.0,
}


def quick(**params: Any) -> RLDClassifier:
    settings: dict[str, Any] = {"max_epochs": 6, "warmup_epochs": 1, "random_state": 0}
    return RLDClassifier(**settings | {"device": "cpu"} | params)


def plain_mlp(n_features: int, n_classes: int) -> nn.Module:
    return nn.Sequential(nn.Linear(n_features, 128), nn.ReLU(), nn.Linear(128, n_classes))


@pytest.mark.long
def test_digits__pairflip__is_far_better_than_cross_entropy_and_never_falls_back() -> None:
    X, y = load_digits(return_X_y=True)
    gained, found, fallen = [], [], []
    for seed in SEEDS:
        X_train, X_test, y_train, y_test = train_test_split(X, y, random_state=seed, stratify=y)
        noisy = noise.pairflip(y_train, 0.4, random_state=seed)
        ours = RLDClassifier(random_state=seed)
        ours.fit(X_train, noisy.labels, X_val=X_test, y_val=y_test)
        baseline = CrossEntropyClassifier(random_state=seed).fit(X_train, noisy.labels)
        accuracy = np.array(ours.history_[:, "valid_acc"])
        after_warm_up = accuracy[ours.warmup_epochs_ - 1]
        running = np.convolve(accuracy[ours.warmup_epochs_ :], np.ones(5) / 5, "valid")
        gained.append(accuracy[-1] - baseline.score(X_test, y_test))
        found.append(detection_auroc(noisy.flipped, ours.label_quality_))
        fallen.append(after_warm_up - min(accuracy[-1] + 0.02, running.min()))
    assert min(gained) > 0.1
    assert min(found) > 0.9
    assert max(fallen) < 0.03


# The anchor.


def test_targets__are_given_labels_above_the_median_and_sharpened_denoised_ones_below() -> None:
    X, given, _ = noisy_blobs()
    clf = quick(temperature=0.5).fit(X, given)
    data = clf._labelled(X, given, "y")
    data.trusted = torch.arange(len(X)) < 3
    data.labels[5] = -1
    targets, weights = clf._targets(data)
    denoised, labels = clf.state_.denoised.double().numpy(), data.labels.tolist()
    for i, label in enumerate(labels):
        peers = [denoised[j, label] for j in range(len(X)) if labels[j] == label]
        n_better = sum(p > denoised[i, label] for p in peers)
        if i < 3 or (label >= 0 and n_better < math.ceil(len(peers) / 2)):
            expected, weight = np.eye(3)[label], 1.0
        else:
            expected = denoised[i] ** 2 / (denoised[i] ** 2).sum()
            weight = denoised[i].max()
        np.testing.assert_allclose(targets[i].numpy(), expected, atol=1e-6)
        assert weights[i] == pytest.approx(weight, rel=1e-5)


def test_denoised_labels__are_averaged_over_epochs_without_a_zero_start() -> None:
    X, given, _ = noisy_blobs()
    clf = quick(temporal_momentum=0.6).fit(X, given)
    values = torch.rand(4, 2, 3, generator=torch.Generator().manual_seed(0))
    idx = torch.tensor([4, 2])
    for epoch, value in enumerate(values):
        clf._remember(idx, value, epoch)
    weights = [0.6 ** (3 - k) for k in range(4)]
    for row, i in enumerate(idx.tolist()):
        expected = sum(w * v[row] for w, v in zip(weights, values, strict=True)) / sum(weights)
        torch.testing.assert_close(clf.state_.denoised[i], expected)


@pytest.mark.parametrize(
    "params",
    [
        {"anchor": "ensemble"},
        {"anchor": None},
        {"denoising": False},
        {"conditioning": None},
        {"rule": "ddpm_mean"},
        {"n_steps": 2},
        {"t_max": 3},
        {"guidance_scale": 0.0},
        {"contrastive_weight": 0.0},
        {"predictor_weight": 0.5},
        {"diffusion_every": 1},
        {"teacher_momentum": 0.0},
        {"temporal_momentum": 0.0},
        {"temperature": 1.0},
    ],
    ids=str,
)
def test_switch__each__changes_the_training(params: dict[str, Any]) -> None:
    X, given, _ = noisy_blobs()
    base, other = quick().fit(X, given), quick(**params).fit(X, given)
    assert not np.array_equal(base.predict_proba(X), other.predict_proba(X))
    assert np.isfinite(other.predict_proba(X)).all()


def test_predictor_weight_0__predictor_stays_as_after_the_warm_up() -> None:
    """Running statistics of normalisation layers went on moving."""
    X, given, _ = noisy_blobs()
    clf = quick(predictor_weight=0.0, warmup_epochs=3).fit(X, given)
    kept = clf.warmed_up_["module"].state_dict()
    assert kept.keys() == clf.module_.state_dict().keys()
    assert all(torch.equal(value, kept[name]) for name, value in clf.module_.state_dict().items())
    moved = quick(warmup_epochs=3).fit(X, given)
    pairs = zip(moved.module_.parameters(), moved.warmed_up_["module"].parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)


def test_denoising_off__learns_what_the_running_average_says_and_trains_no_diffusion() -> None:
    X, given, _ = noisy_blobs()
    clf = quick(denoising=False, augmentation=None, batch_size=512, temporal_momentum=0.0)
    seen: list[Tensor] = []

    class Recorder(RLDClassifier):
        def _remember(self, idx: Tensor, denoised: Tensor, epoch: int) -> None:
            rows = torch.as_tensor(X)[idx]
            seen.append((denoised - self.teacher_(rows).softmax(1)).detach())

    Recorder(**clf.get_params()).fit(X, given)
    assert max(float(difference.abs().max()) for difference in seen) < 1e-6
    clf.fit(X, given)
    assert "noise_error" not in clf.history_[-1]
    with pytest.raises(ValueError, match="denoise needs a diffusion that has been trained"):
        clf.denoise(X)
    with pytest.raises(ValueError, match="inference='diffusion' needs a diffusion"):
        clf.set_params(inference="diffusion").fit(X, given)


# The guard.


@pytest.mark.long
@pytest.mark.parametrize("seed", SEEDS)
def test_published_form__perceptron_without_normalisation__collapses_and_is_caught(
    seed: int,
) -> None:
    X, y = load_digits(return_X_y=True)
    X, y = X[:600], y[:600]
    given = noise.symmetric(y, 0.4, random_state=seed).labels
    clf = quick(module=plain_mlp, augmentation=None, lr=0.1, random_state=seed, **PUBLISHED)
    clf.set_params(max_epochs=30, warmup_epochs=8)
    with pytest.warns(NoisyFitWarning, match=r"weights after epoch 8 were put back"):
        clf.fit(X, given)
    assert clf.collapsed_
    assert clf.n_iter_ < 30
    assert clf.score(X, y) > 0.7
    assert (clf.label_distribution_.argmax(1) == y).mean() > 0.7
    assert clf.history_[-1, "mean_prediction_entropy"] < clf.history_[7, "mean_prediction_entropy"]
    # The diffusion stayed what the collapsed predictor had made of it.
    for name in ("module", "teacher", "diffusion"):
        kept = clf.warmed_up_[name].state_dict()
        now = getattr(clf, f"{name}_").state_dict()
        assert all(torch.equal(value, kept[key]) for key, value in now.items())


# The published equations.


def test_no_anchor__all_rows_count_alike_and_trusted_ones_keep_their_label() -> None:
    """Rows counted by their confidence, and the denoised label was the target of trusted ones."""
    X, given, _ = noisy_blobs()
    trusted = np.arange(len(X)) % 3 == 0
    seen: list[tuple[Tensor, Tensor, Tensor]] = []

    class Recorder(RLDClassifier):
        def _remember(self, idx: Tensor, denoised: Tensor, epoch: int) -> None:
            super()._remember(idx, denoised, epoch)
            self.idx = idx, denoised

        def _train_predictor(self, x: Tensor, target: Tensor, weight: Tensor) -> Tensor:
            if int(self.state_.first_epoch) >= 0:
                both = torch.cat([target, weight[:, None]], 1)
                seen.append((self.idx[0].cpu(), self.idx[1].cpu(), both.cpu()))
            return super()._train_predictor(x, target, weight)

    clf = Recorder(max_epochs=4, warmup_epochs=2, anchor=None, random_state=0)
    clf.fit(X, given, clean_mask=trusted)
    onehot = np.eye(3)[np.searchsorted(clf.classes_, given)]
    for idx, denoised, both in seen:
        assert both[:, 3].tolist() == [1.0] * len(idx)
        for i, probs, target in zip(idx.tolist(), denoised, both[:, :3], strict=True):
            np.testing.assert_allclose(target, onehot[i] if trusted[i] else probs, atol=1e-7)


def contrast(clf: RLDClassifier, label: Label, other: Label) -> float:
    means = [mean.detach() for _, mean in clf.diffusion_.step_back(clf._two_views(label, other))]
    return float(label_contrastive(*means, temperature=0.1))


def test_two_views__step_and_noise_are_one_for_the_batch() -> None:
    """Each row had its own noise and shared it with its other view: noise gave the view away."""
    X, given, _ = noisy_blobs()
    clf = quick(max_epochs=2, t_max=50, warmup_epochs=1).fit(X, given)
    label = predicted_label(clf.teacher_, torch.as_tensor(X[:6]))
    same = Label(*(part[:1].expand_as(part) for part in label))
    torch.manual_seed(0)
    alike = contrast(clf, same, same)
    # Rows alike in all but their noise: each is told from the other five by chance.
    assert alike == pytest.approx(math.log(5), abs=1e-4)

    torch.manual_seed(1)
    found = contrast(clf, label, Label(*(part.flip(0) for part in label)))
    torch.manual_seed(1)
    t = int(torch.randint(1, 51, (6,))[0])
    noise_row = torch.randn(1, 3).double()
    alpha_bar = clf.diffusion_.schedule.alpha_bar.double()
    scale = clf.diffusion_.scale
    means = []
    for i in range(6):
        z = (label.logits[i : i + 1].double() - float(scale.mean)) / float(scale.std)
        z_t = alpha_bar[t].sqrt() * z + (1 - alpha_bar[t]).sqrt() * noise_row
        row = Label(*(part[i : i + 1] for part in label))
        ((guess, _),) = clf.diffusion_.step_back(
            [Noised(row, noise_row.float(), torch.tensor([t]))]
        )
        alpha = alpha_bar[t] / alpha_bar[t - 1]
        moved = z_t - (1 - alpha) / (1 - alpha_bar[t]).sqrt() * guess.double()
        means.append((moved / alpha.sqrt())[0])
    total = 0.0
    for i in range(6):
        others = [math.exp(_cosine(means[i], means[j]) / 0.1) for j in range(6) if j != i]
        total += math.log(sum(others)) - _cosine(means[i], means[5 - i]) / 0.1
    assert found == pytest.approx(total / 6, abs=1e-3)


def _cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


# Denoising rows.


@pytest.mark.long
def test_denoise__wrong_given_labels__walk_to_the_true_class() -> None:
    for seed in SEEDS:
        X, given, flipped = noisy_blobs(seed)
        clf = quick(max_epochs=30, batch_size=32, t_max=20, random_state=seed).fit(X, given)
        walks = clf.denoise(X[flipped], given[flipped], return_trajectory=True)
        _, y = blobs(seed=seed)
        assert walks.shape == (6, flipped.sum(), 3)
        assert (walks[0].argmax(1) == np.searchsorted(clf.classes_, given[flipped])).all()
        assert (clf.classes_[walks[-1].argmax(1)] == y[flipped]).mean() > 0.8


def test_denoise__is_the_end_of_its_trajectory_and_a_distribution() -> None:
    X, given, _ = noisy_blobs()
    clf = quick().fit(X, given)
    walks = clf.denoise(X, return_trajectory=True)
    assert np.array_equal(walks[-1], clf.denoise(X))
    np.testing.assert_allclose(walks.sum(2), 1, rtol=1e-5)
    assert np.array_equal(clf.denoise(X), clf.denoise(X))


def test_denoise__missing_label__starts_from_the_prediction() -> None:
    X, given, _ = noisy_blobs()
    clf = quick(missing_label=-1).fit(X, given)
    partly = np.where(np.arange(len(given)) % 2, given, -1)
    got = clf.denoise(X, partly)
    np.testing.assert_allclose(got[::2], clf.denoise(X)[::2], atol=1e-6)
    np.testing.assert_allclose(got[1::2], clf.denoise(X, given)[1::2], atol=1e-6)


def test_inference_diffusion__predicts_denoised_labels_after_loading_too(tmp_path: Path) -> None:
    X, given, _ = noisy_blobs()
    clf = quick(inference="diffusion").fit(X, given)
    assert np.array_equal(clf.predict_proba(X), clf.denoise(X))
    assert not np.array_equal(clf.predict_proba(X), quick().fit(X, given).predict_proba(X))
    clf.save(tmp_path / "model")
    loaded = RLDClassifier.load(tmp_path / "model", device="cpu")
    assert np.array_equal(loaded.predict_proba(X), clf.predict_proba(X))


# Small functions.


def test_entropy_and_agreement() -> None:
    probs = torch.tensor([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    for row, value in zip(probs.tolist(), entropy(probs).tolist(), strict=True):
        assert value == pytest.approx(-sum(p * math.log(p) for p in row if p > 0), rel=1e-6)
    assert agreement(probs, probs.flip(0)) == 0.0
    assert agreement(probs, torch.tensor([[0.9, 0.1, 0.0], [1.0, 0.0, 0.0]])) == 0.5


@pytest.mark.parametrize("n_classes", [2, 5])
def test_standardized_one_hot__has_mean_0_and_variance_1(n_classes: int) -> None:
    z: Tensor = standardized_one_hot(torch.arange(n_classes), n_classes)
    torch.testing.assert_close(z.mean(1), torch.zeros(n_classes), atol=1e-6, rtol=0)
    torch.testing.assert_close(z.std(1, correction=0), torch.ones(n_classes))
    assert z.argmax(1).tolist() == list(range(n_classes))
