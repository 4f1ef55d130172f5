from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import norm, truncnorm

from noisyfit.noise import (
    CIFAR10_MAP,
    CIFAR100_MAP,
    CIFAR100_SUPERCLASSES,
    HUMAN_LIKE_CIFAR10,
    NoisyLabels,
    asymmetric,
    from_confusion,
    human_like,
    instance_dependent,
    pairflip,
    symmetric,
)

SEEDS = [0, 1, 2]
TEN = np.arange(20_000) % 10
THREE = np.arange(300) % 3
FEATURES = np.random.default_rng(7).normal(size=(300, 5))

Simulator = Callable[..., NoisyLabels]
SIMULATORS: dict[str, Simulator] = {
    "symmetric": lambda y, **kw: symmetric(y, 0.3, **kw),
    "inclusive": lambda y, **kw: symmetric(y, 0.3, own_class=True, **kw),
    "exact": lambda y, **kw: symmetric(y, 0.3, exact=True, **kw),
    "pairflip": lambda y, **kw: pairflip(y, 0.3, **kw),
    "instance_dependent": lambda y, **kw: instance_dependent(y, FEATURES[: len(y)], 0.3, **kw),
    "asymmetric": lambda y, **kw: asymmetric(y, 0.3, dict([list(np.unique(y)[:2])]), **kw),
    "from_confusion": lambda y, **kw: from_confusion(y, _uniform_off(len(np.unique(y))), **kw),
}
every_simulator = pytest.mark.parametrize("name", SIMULATORS)


def _uniform_off(n_classes: int) -> NDArray[Any]:
    matrix = np.full((n_classes, n_classes), 0.3 / (n_classes - 1))
    np.fill_diagonal(matrix, 0.7)
    return matrix


def _shares(clean: NDArray[Any], noisy: NDArray[Any]) -> NDArray[Any]:
    pairs = Counter(zip(clean.tolist(), noisy.tolist(), strict=True))
    classes = sorted(set(clean.tolist()))
    totals = Counter(clean.tolist())
    return np.array([[pairs[a, b] / totals[a] for b in classes] for a in classes])


LABEL_TYPES = {
    "int": np.array([0, 1, 2] * 60),
    "five_and_seven": np.array([5, 7] * 90, dtype=np.int8),
    "bool": np.array([True, False] * 90),
    "str": np.array(["cat", "horse", "a dog"] * 60),
    "object": np.array(["no", "yes", "perhaps"] * 60, dtype=object),
    "float": np.array([0.5, 1.5] * 90),
    "series": pd.Series(["x", "y"] * 90, index=range(1000, 1180)),
    "list": ["x", "y"] * 90,
}


@every_simulator
@pytest.mark.parametrize("kind", LABEL_TYPES)
def test_labels_keep_their_type_and_classes(name: str, kind: str) -> None:
    y = LABEL_TYPES[kind]
    clean = np.asarray(y)
    noisy = SIMULATORS[name](y, random_state=0)
    assert isinstance(noisy.labels, np.ndarray)
    assert noisy.labels.dtype == clean.dtype
    assert noisy.labels.shape == clean.shape
    assert set(noisy.labels.tolist()) == set(clean.tolist())
    assert [type(label) for label in noisy.labels.tolist()] == [type(a) for a in clean.tolist()]


@every_simulator
def test_mask_and_rate_describe_the_labels(name: str) -> None:
    noisy = SIMULATORS[name](THREE, random_state=0)
    differs = [bool(a != b) for a, b in zip(THREE, noisy.labels, strict=True)]
    assert noisy.flipped.dtype == bool
    assert noisy.flipped.tolist() == differs
    assert noisy.rate == sum(differs) / len(differs)
    assert isinstance(noisy.rate, float)
    assert 0 < noisy.rate < 1


@every_simulator
def test_transition_rows_sum_to_one(name: str) -> None:
    transition = SIMULATORS[name](THREE, random_state=0).transition
    assert transition.shape == (3, 3)
    np.testing.assert_allclose(transition.sum(axis=1), 1, atol=1e-12)
    assert (transition >= 0).all()


@every_simulator
def test_realised_shares_follow_the_transition(name: str) -> None:
    y = np.arange(6000) % 3
    features = np.random.default_rng(1).normal(size=(6000, 4))
    for seed in SEEDS:
        if name == "instance_dependent":
            noisy = instance_dependent(y, features, 0.3, random_state=seed)
        else:
            noisy = SIMULATORS[name](y, random_state=seed)
        # Five standard errors of a share over 2000 rows: 5 * sqrt(0.25 / 2000) = 0.056.
        np.testing.assert_allclose(_shares(y, noisy.labels), noisy.transition, atol=0.056)


@every_simulator
def test_same_seed_same_labels_and_other_seed_other_labels(name: str) -> None:
    first = SIMULATORS[name](THREE, random_state=3).labels
    assert SIMULATORS[name](THREE, random_state=3).labels.tolist() == first.tolist()
    assert SIMULATORS[name](THREE, random_state=4).labels.tolist() != first.tolist()


@every_simulator
@pytest.mark.parametrize("seed", [None, 0])
def test_global_random_state_is_neither_read_nor_written(name: str, seed: int | None) -> None:
    np.random.seed(11)
    expected = np.random.random(4)
    np.random.seed(11)
    first = SIMULATORS[name](THREE, random_state=seed).labels
    np.testing.assert_array_equal(np.random.random(4), expected)
    np.random.seed(11)
    if seed is None:
        assert SIMULATORS[name](THREE).labels.tolist() != first.tolist()


@every_simulator
def test_clean_labels_are_left_alone(name: str) -> None:
    y = THREE.copy()
    SIMULATORS[name](y, random_state=0)
    np.testing.assert_array_equal(y, THREE)


@pytest.mark.parametrize("make", [np.random.default_rng, np.random.RandomState])
def test_random_state__generator__is_consumed(make: Callable[[int], Any]) -> None:
    rng = make(5)
    first = symmetric(THREE, 0.3, random_state=rng).labels.tolist()
    assert symmetric(THREE, 0.3, random_state=rng).labels.tolist() != first
    assert symmetric(THREE, 0.3, random_state=make(5)).labels.tolist() == first


@pytest.mark.parametrize("y", [[1, 1, 1], [], [1.0, 2.0, float("nan")], ["a", None], [[0, 1]]])
def test_labels__impossible__are_refused(y: Any) -> None:
    simulators: list[Callable[[], NoisyLabels]] = [
        lambda: symmetric(y, 0.3),
        lambda: asymmetric(y, 0.3, {}),
        lambda: pairflip(y, 0.3),
        lambda: instance_dependent(y, FEATURES, 0.3),
        lambda: from_confusion(y, np.eye(2)),
        lambda: human_like(y),
    ]
    for simulate in simulators:
        with pytest.raises(ValueError, match="y must"):
            simulate()


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.8])
def test_symmetric__exclusive__realises_the_rate(rate: float) -> None:
    for seed in SEEDS:
        noisy = symmetric(TEN, rate, random_state=seed)
        assert noisy.rate == pytest.approx(rate, abs=0.015)  # five standard errors
        for i in range(10):
            for j in range(10):
                assert noisy.transition[i, j] == pytest.approx(1 - rate if i == j else rate / 9)


@pytest.mark.parametrize("n_classes", [2, 10])
def test_symmetric__inclusive__realises_less_than_the_rate(n_classes: int) -> None:
    y = np.arange(20_000) % n_classes
    for seed in SEEDS:
        noisy = symmetric(y, 0.5, own_class=True, random_state=seed)
        assert noisy.rate == pytest.approx(0.5 * (n_classes - 1) / n_classes, abs=0.018)
        for i in range(n_classes):
            for j in range(n_classes):
                expected = 0.5 / n_classes + (0.5 if i == j else 0)
                assert noisy.transition[i, j] == pytest.approx(expected)


def test_symmetric__exact__flips_the_rounded_number_of_labels() -> None:
    for seed in SEEDS:
        for n, rate in [(100, 0.2), (101, 0.3), (7, 0.5)]:
            noisy = symmetric(np.arange(n) % 5, rate, exact=True, random_state=seed)
            assert noisy.flipped.sum() == round(rate * n)
            assert 1 - noisy.transition[0, 0] == pytest.approx(round(rate * n) / n)


def test_symmetric__exact_with_own_class__redraws_the_rounded_number() -> None:
    for seed in SEEDS:
        noisy = symmetric(TEN, 0.5, own_class=True, exact=True, random_state=seed)
        assert noisy.flipped.sum() < 10_000
        assert noisy.rate == pytest.approx(0.45, abs=0.011)  # five standard errors


@pytest.mark.parametrize(
    "y, rate, own_class, limit",
    [
        ([0, 1], 0.5, False, "0.5"),
        ([0, 1, 2, 3], 0.75, False, "0.75"),
        ([0, 1], 1.0, True, "1"),
        ([0, 1], -0.1, False, "0.5"),
        ([0, 1], float("nan"), False, "0.5"),
    ],
)
def test_symmetric__impossible_rate__names_the_limit(
    y: list[int], rate: float, own_class: bool, limit: str
) -> None:
    with pytest.raises(ValueError, match=rf"rate must lie in \[0, {limit}\)"):
        symmetric(y, rate, own_class=own_class)


@pytest.mark.parametrize("rate", [0.5, -0.1, 20])
def test_pairflip_and_asymmetric__impossible_rate__is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 0.5\)"):
        pairflip([0, 1], rate)
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 0.5\)"):
        asymmetric([0, 1], rate, {0: 1})


def test_pairflip_goes_to_the_next_class_and_from_the_last_to_the_first() -> None:
    for seed in SEEDS:
        noisy = pairflip(TEN, 0.45, random_state=seed)
        assert noisy.rate == pytest.approx(0.45, abs=0.018)
        for clean, given in zip(TEN.tolist(), noisy.labels.tolist(), strict=True):
            assert given in (clean, (clean + 1) % 10)


def test_pairflip__gaps_between_labels__follows_sorted_order() -> None:
    noisy = pairflip(np.array([7, 5, 100] * 50), 0.4, random_state=0)
    clean = np.array([7, 5, 100] * 50)
    assert set(noisy.labels[clean == 5]) == {5, 7}
    assert set(noisy.labels[clean == 7]) == {7, 100}
    assert set(noisy.labels[clean == 100]) == {100, 5}


def test_asymmetric_flips_mapped_classes_only_and_only_as_mapped() -> None:
    for seed in SEEDS:
        noisy = asymmetric(TEN, 0.4, CIFAR10_MAP, random_state=seed)
        for clean, given in zip(TEN.tolist(), noisy.labels.tolist(), strict=True):
            assert given in (clean, CIFAR10_MAP.get(clean, clean))
        assert noisy.rate == pytest.approx(0.2, abs=0.013)  # half of the classes are mapped
        for mapped in CIFAR10_MAP:
            # Five standard errors over 2000 rows.
            assert noisy.flipped[TEN == mapped].mean() == pytest.approx(0.4, abs=0.055)


@pytest.mark.parametrize("mapping", [{0: 7}, {7: 0}, {"0": 1}])
def test_asymmetric__class_not_in_y__is_named(mapping: dict[Any, Any]) -> None:
    with pytest.raises(ValueError, match="mapping must name classes of y. Got '?[70]"):
        asymmetric([0, 1, 2], 0.2, mapping)


def test_cifar10_map_swaps_cat_and_dog_and_sends_three_more() -> None:
    names = "airplane automobile bird cat deer dog frog horse ship truck".split()
    assert {names[a]: names[b] for a, b in CIFAR10_MAP.items()} == {
        "truck": "automobile",
        "bird": "airplane",
        "deer": "horse",
        "cat": "dog",
        "dog": "cat",
    }


def test_cifar100_superclasses_have_five_classes_each() -> None:
    assert len(CIFAR100_SUPERCLASSES) == 100
    assert Counter(CIFAR100_SUPERCLASSES) == dict.fromkeys(range(20), 5)


def test_cifar100_superclasses_are_those_of_the_data_set() -> None:
    coarse_of_apple_to_worm = (
        "4 1 14 8 0 6 7 7 18 3 3 14 9 18 7 11 3 9 7 11 "
        "6 11 5 10 7 6 13 15 3 15 0 11 1 10 12 14 16 9 11 5 "
        "5 19 8 8 15 13 14 17 18 10 16 4 17 4 2 0 17 4 18 17 "
        "10 3 2 12 12 16 12 1 9 19 2 10 0 1 16 12 9 13 15 13 "
        "16 19 2 4 6 19 5 5 8 19 18 1 2 15 6 0 17 8 14 13 "
    )
    assert CIFAR100_SUPERCLASSES == tuple(map(int, coarse_of_apple_to_worm.split()))


def test_cifar100_map_closes_after_five_steps_inside_a_superclass() -> None:
    assert sorted(CIFAR100_MAP) == sorted(CIFAR100_MAP.values()) == list(range(100))
    for start in range(100):
        visited = [start]
        for _ in range(5):
            visited.append(CIFAR100_MAP[visited[-1]])
        assert visited[5] == start
        assert len(set(visited)) == 5
        assert len({CIFAR100_SUPERCLASSES[fine] for fine in visited}) == 1
        assert sum(b <= a for a, b in zip(visited, visited[1:], strict=False)) == 1  # one wrap


def test_from_confusion_draws_from_the_row_of_the_true_class() -> None:
    matrix = [[0.5, 0.2, 0.3], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    y = np.array(["a", "b", "c"] * 2000)
    for seed in SEEDS:
        noisy = from_confusion(y, matrix, random_state=seed)
        np.testing.assert_allclose(_shares(y, noisy.labels), matrix, atol=0.056)
        np.testing.assert_array_equal(noisy.transition, matrix)
        assert set(noisy.labels[y == "b"]) == {"b"}
        assert set(noisy.labels[y == "c"]) == {"a"}


@pytest.mark.parametrize(
    "matrix, message",
    [
        (np.eye(2), r"transition must have shape \(3, 3\)"),
        (np.ones(3), r"transition must have shape \(3, 3\)"),
        (np.full((3, 3), 0.5), "rows that sum to 1"),
        ([[1.5, -0.5, 0], [0, 1, 0], [0, 0, 1]], "entries >= 0"),
        (np.full((3, 3), np.nan), "entries >= 0"),
    ],
)
def test_from_confusion__bad_matrix__says_what_must_hold(matrix: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_confusion(THREE, matrix)


def test_human_like_matrix_has_the_known_shape() -> None:
    assert HUMAN_LIKE_CIFAR10.shape == (10, 10)
    np.testing.assert_allclose(HUMAN_LIKE_CIFAR10.sum(axis=1), 1, atol=1e-12)
    assert (HUMAN_LIKE_CIFAR10 > 0).all()
    diagonal = HUMAN_LIKE_CIFAR10.diagonal()
    assert 1 - diagonal.mean() == pytest.approx(0.4, abs=0.005)
    assert (int(diagonal.argmin()), float(diagonal.min())) == (3, 0.49)
    assert (int(diagonal.argmax()), float(diagonal.max())) == (7, 0.72)
    assert HUMAN_LIKE_CIFAR10.argmax(axis=1).tolist() == list(range(10))
    off = HUMAN_LIKE_CIFAR10 - np.diag(diagonal)
    strongest = [divmod(int(i), 10) for i in np.argsort(-off, axis=None)[:5]]
    assert strongest == [(9, 1), (1, 9), (3, 5), (5, 3), (4, 7)]


def test_human_like_matrix_cannot_be_changed_by_accident() -> None:
    with pytest.raises(ValueError, match="read-only"):
        HUMAN_LIKE_CIFAR10[0, 0] = 1.0
    human_like(TEN, random_state=0).transition[0, 0] = 1.0
    assert HUMAN_LIKE_CIFAR10[0, 0] == 0.61


def test_human_like_realises_the_matrix() -> None:
    for seed in SEEDS:
        noisy = human_like(TEN, random_state=seed)
        # Five standard errors of a share over 2000 rows.
        np.testing.assert_allclose(_shares(TEN, noisy.labels), HUMAN_LIKE_CIFAR10, atol=0.056)
        assert noisy.rate == pytest.approx(0.399, abs=0.018)


def test_human_like__other_than_ten_classes__is_refused() -> None:
    with pytest.raises(ValueError, match="y holds 3 classes"):
        human_like(THREE)


def _truncated_normal_mean(mean: float) -> float:
    low, high = -mean / 0.1, (1 - mean) / 0.1
    mass = norm.cdf(high) - norm.cdf(low)
    return float(mean + 0.1 * (norm.pdf(low) - norm.pdf(high)) / mass)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.4, 0.85])
def test_instance_dependent_realises_the_mean_of_the_truncated_normal(rate: float) -> None:
    features = np.random.default_rng(0).normal(size=(len(TEN), 6))
    for seed in SEEDS:
        noisy = instance_dependent(TEN, features, rate, random_state=seed)
        assert noisy.rate == pytest.approx(_truncated_normal_mean(rate), abs=0.018)


def test_instance_dependent__rate_zero__flips_nothing() -> None:
    noisy = instance_dependent(THREE, FEATURES, 0.0, random_state=0)
    assert noisy.rate == 0
    np.testing.assert_array_equal(noisy.transition, np.eye(3))


@pytest.mark.parametrize("scale", ["unit_variance", "raw"])
def test_instance_dependent_draws_what_naive_loops_draw(scale: Any) -> None:
    y, rate, sharpness = np.array([0, 1, 0, 2, 1, 2, 0, 1]), 0.4, 1.7
    x = np.random.default_rng(3).uniform(0, 4, size=(8, 2))
    noisy = instance_dependent(y, x, rate, scale=scale, sharpness=sharpness, random_state=1)

    rng = np.random.default_rng(1)
    flip_rates = truncnorm.rvs(
        -rate / 0.1, (1 - rate) / 0.1, loc=rate, scale=0.1, size=8, random_state=rng
    )
    mean = [sum(row[j] for row in x) / 8 if scale != "raw" else 0.0 for j in range(2)]
    labels, transition = [-1] * 8, np.zeros((3, 3))
    for own in range(3):
        rows = [i for i in range(8) if y[i] == own]
        w = rng.standard_normal((2, 3))
        logits = [[sum((x[i][j] - mean[j]) * w[j][k] for j in range(2)) for k in range(3)]
                  for i in rows]  # fmt: skip
        flat = [v for row in logits for v in row]
        average = sum(flat) / len(flat)
        std = (sum((v - average) ** 2 for v in flat) / len(flat)) ** 0.5 if scale != "raw" else 1.0
        for i, row, draw in zip(rows, logits, rng.random(len(rows)), strict=True):
            exps = [np.exp(sharpness * v / std) if k != own else 0.0 for k, v in enumerate(row)]
            probs = [flip_rates[i] * e / sum(exps) for e in exps]
            probs[own] = 1 - flip_rates[i]
            transition[own] += np.array(probs) / len(rows)
            labels[i] = next(k for k in range(3) if draw < sum(probs[: k + 1]))
    assert noisy.labels.tolist() == labels
    np.testing.assert_allclose(noisy.transition, transition, rtol=1e-9)


def test_instance_dependent__equal_rows_differing_labels__depends_on_the_features() -> None:
    y = np.arange(8000) % 4
    features = np.repeat([[3.0, 0.0], [0.0, 3.0]], 4000, axis=0)
    for seed in SEEDS:
        noisy = instance_dependent(y, features, 0.6, sharpness=3, random_state=seed)
        first, second = (
            _shares(y[:4000], noisy.labels[:4000]),
            _shares(y[4000:], noisy.labels[4000:]),
        )
        assert np.abs(first - second).max() > 0.2  # 0.02 if X were ignored


def test_instance_dependent__sharpness_zero__spreads_over_all_wrong_classes() -> None:
    transition = instance_dependent(THREE, FEATURES, 0.4, sharpness=0.0, random_state=0).transition
    for i in range(3):
        a, b = (transition[i, j] for j in range(3) if j != i)
        assert a == pytest.approx(b)


def test_instance_dependent__unit_variance__ignores_the_unit_and_origin_of_x() -> None:
    for seed in SEEDS:
        reference = instance_dependent(THREE, FEATURES, 0.4, random_state=seed)
        for other in (FEATURES * 255, FEATURES + 9):
            noisy = instance_dependent(THREE, other, 0.4, random_state=seed)
            np.testing.assert_allclose(noisy.transition, reference.transition, rtol=1e-9)
            assert noisy.labels.tolist() == reference.labels.tolist()


def test_instance_dependent__raw__saturates_with_the_unit_of_x() -> None:
    y = np.arange(300) % 10
    sharpest: dict[int, list[float]] = {1: [], 255: []}
    for seed in SEEDS:
        for factor, found in sharpest.items():
            one_row_a_class = np.arange(10)
            noisy = instance_dependent(
                one_row_a_class, FEATURES[:10] * factor, 0.4, scale="raw", random_state=seed
            )
            off = noisy.transition - np.diag(noisy.transition.diagonal())
            found.append(float((off.max(axis=1) / off.sum(axis=1)).mean()))
    assert min(sharpest[255]) > 0.95  # one possible wrong class
    assert max(sharpest[1]) < 0.9
    raw = instance_dependent(y, FEATURES, 0.4, scale="raw", random_state=0)
    scaled = instance_dependent(y, FEATURES * 255, 0.4, scale="raw", random_state=0)
    assert raw.labels.tolist() != scaled.labels.tolist()


def test_instance_dependent__images__are_flattened() -> None:
    images = np.random.default_rng(0).integers(0, 256, size=(300, 4, 4, 3), dtype=np.uint8)
    flat = images.reshape(300, -1).astype(np.float64)
    from_images = instance_dependent(THREE, images, 0.4, random_state=0)
    from_flat = instance_dependent(THREE, flat, 0.4, random_state=0)
    assert from_images.labels.tolist() == from_flat.labels.tolist()


def test_instance_dependent__frame_and_series__need_no_conversion() -> None:
    index = range(50, 350)
    frame, series = pd.DataFrame(FEATURES, index=index), pd.Series(THREE, index=index)
    noisy = instance_dependent(series, frame, 0.4, random_state=0)
    plain = instance_dependent(THREE, FEATURES, 0.4, random_state=0)
    assert noisy.labels.tolist() == plain.labels.tolist()


def test_instance_dependent__more_rows_than_a_chunk__keeps_their_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = instance_dependent(THREE, FEATURES, 0.4, random_state=0)
    monkeypatch.setattr("noisyfit.noise._CHUNK", 7)
    chunked = instance_dependent(THREE, FEATURES, 0.4, random_state=0)
    assert chunked.labels.tolist() == whole.labels.tolist()


@pytest.mark.parametrize("y", [[0, 1], [0, 1, 2], [0, 0, 1]])
def test_instance_dependent__one_row_or_equal_rows__still_draws(y: list[int]) -> None:
    noisy = instance_dependent(y, np.ones((len(y), 2)), 0.3, random_state=0)
    np.testing.assert_allclose(noisy.transition.sum(axis=1), 1)


@pytest.mark.parametrize(
    "x, message",
    [
        (None, "Got None"),
        (FEATURES[:10], r"dense array of shape \(300, ...\)"),
        (FEATURES[:, 0], r"dense array of shape \(300, ...\)"),
        (np.where(FEATURES > 2, np.nan, FEATURES), "X must be finite"),
        (np.where(FEATURES > 2, np.inf, FEATURES), "X must be finite"),
    ],
)
def test_instance_dependent__unusable_features__says_what_must_hold(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        instance_dependent(THREE, x, 0.3)


@pytest.mark.parametrize(
    "options", [{"scale": "unit"}, {"sharpness": -1.0}, {"sharpness": float("nan")}]
)
def test_instance_dependent__unknown_option__is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="scale must be"):
        instance_dependent(THREE, FEATURES, 0.3, **options)


def test_instance_dependent__rate_of_pure_chance__is_refused() -> None:
    with pytest.raises(ValueError, match=r"rate must lie in \[0, 0.6667\)"):
        instance_dependent(THREE, FEATURES, 2 / 3)
