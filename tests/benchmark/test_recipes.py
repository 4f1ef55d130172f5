from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from skorch.callbacks import Callback

from noisyfit import (
    CLIDMetaClassifier,
    DivideMixClassifier,
    EchoAlignClassifier,
    ELRClassifier,
    FlywheelClassifier,
    HRPClassifier,
    RLDClassifier,
)
from noisyfit.benchmark.recipes import RECIPES, recipe

DATASETS = list(RECIPES["flywheel"])


class RecordRates(Callback):  # type: ignore[misc]
    """Keeps the learning rates with which each epoch starts."""

    def __init__(self) -> None:
        self.rates: list[tuple[float, float]] = []

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        optimizers = net.optimizer_, getattr(net, "main_optimizer_", net.optimizer_)
        self.rates.append(tuple(o.param_groups[0]["lr"] for o in optimizers))  # type: ignore[arg-type]


def rates_of_a_fit(settings: dict[str, Any]) -> list[float]:
    """Learning rate of each epoch of a fit on eight rows of a table with the same schedule."""
    record = RecordRates()
    small: dict[str, Any] = {"module": "mlp", "module__width": 4, "contrastive_weight": 0.0}
    settings = {k: v for k, v in settings.items() if not k.startswith("module")} | small
    settings["callbacks"] = [*(settings.get("callbacks") or []), ("record", record)]
    X = np.random.default_rng(0).normal(size=(8, 2))
    FlywheelClassifier(**settings, random_state=0).fit(X, [0, 1] * 4)
    auxiliary, main = zip(*record.rates, strict=True)
    assert auxiliary == pytest.approx(main)
    return list(auxiliary)


@pytest.mark.parametrize("dataset", DATASETS)
def test_recipe_holds_only_parameters_of_the_estimator(dataset: str) -> None:
    settings = recipe("flywheel", dataset)
    clf = FlywheelClassifier(**settings)
    plain = {name for name in settings if "__" not in name}
    assert plain <= set(FlywheelClassifier().get_params())
    prefixes = {name.partition("__")[0] for name in settings if "__" in name}
    assert prefixes <= {"module", "optimizer"}
    assert {name: clf.get_params(deep=False)[name] for name in settings} == settings


@pytest.mark.parametrize(
    "dataset, module, warmup_epochs",
    [
        ("cifar10", "resnet34", 10),
        ("cifar100", "resnet50", 30),
        ("animal10n", "vgg19_bn", 30),
        ("red_mini_imagenet", "preact_resnet18", 30),
    ],
)
def test_recipe_of_rld__is_the_published_form(
    dataset: str, module: str, warmup_epochs: int
) -> None:
    settings = recipe("rld", dataset)
    assert {k for k in settings if "__" not in k} <= set(RLDClassifier().get_params())
    assert (settings["anchor"], settings["conditioning"], settings["rule"]) == (
        None, None, "ddpm_mean",
    )  # fmt: skip
    assert (settings["module"], settings["warmup_epochs"]) == (module, warmup_epochs)
    assert (settings["max_epochs"], settings["lr"], settings["n_steps"]) == (200, 0.01, 50)
    assert settings["callbacks"][0][1].kwargs == {"milestones": [100], "gamma": 0.1}


@pytest.mark.parametrize(
    "method, cls",
    [("clid", CLIDMetaClassifier), ("vri", CLIDMetaClassifier), ("hrp", HRPClassifier)],
)
def test_recipe__each_data_set__trains_with_its_schedule(method: str, cls: Any) -> None:
    X, y = make_blobs(40, 4, centers=2, random_state=0)
    for dataset in RECIPES[method]:
        settings = recipe(method, dataset)
        assert {name for name in settings if "__" not in name} <= set(cls().get_params())
        record, small = RecordRates(), {"module": "mlp", "module__width": 4, "max_epochs": 13}
        settings = {k: v for k, v in settings.items() if not k.startswith("module")} | small
        settings |= {"warmup_epochs": 1, "callbacks": [*settings["callbacks"], ("rates", record)]}
        cls(**settings, random_state=0).fit(X, y, X_meta=X[:8], y_meta=y[:8])
        lr, floor = settings["lr"], 1e-3
        cosine = [floor + (lr - floor) * (1 + np.cos(np.pi * e / 10)) / 2 for e in range(13)]
        wanted = cosine if method != "hrp" else [lr] * 13
        assert [rate for rate, _ in record.rates] == pytest.approx(wanted)


def test_recipe_of_hrp__is_the_published_form() -> None:
    for dataset in RECIPES["hrp"]:
        settings = recipe("hrp", dataset)
        assert (settings["norm"], settings["unit_gradients"]) == ("sum", False)
        assert (settings["meta_objective"], settings["temporal_momentum"]) == ("ce", 0.0)
        assert settings["callbacks"][0][1].kwargs == {"milestones": [250, 400], "gamma": 0.1}


def test_recipe_of_echoalign__is_the_released_form() -> None:
    settings = recipe("echoalign", "cifar100")
    clf = EchoAlignClassifier(**settings)
    assert (clf.include_modified, clf.domain_weighting, clf.finetune_epochs) == ("all", True, 40)
    assert (clf.estimator.module, clf.estimator.max_epochs, clf.estimator.lr) == (
        "resnet34", 200, 0.1,
    )  # fmt: skip
    assert clf.estimator.callbacks[0][1].kwargs == {"milestones": [100, 150], "gamma": 0.1}
    again = recipe("echoalign", "cifar100")["estimator"]
    assert again is not clf.estimator


def test_recipe_of_elr__is_the_published_form() -> None:
    first, second = (recipe("elr", dataset) for dataset in ("cifar10", "cifar100"))
    assert (first["regularization"], first["target_momentum"]) == (3.0, 0.7)
    assert (second["regularization"], second["target_momentum"]) == (7.0, 0.9)
    assert first["callbacks"][0][1].kwargs == {"T_0": 10, "eta_min": 1e-3}
    assert second["callbacks"][0][1].kwargs == {"milestones": [80, 120], "gamma": 0.1}
    for settings in (first, second):
        assert ELRClassifier(**settings).max_epochs == 150
        assert (settings["lr"], settings["optimizer__weight_decay"]) == (0.02, 1e-3)


def test_recipe_of_dividemix__weight_is_the_papers_over_the_number_of_classes() -> None:
    for dataset, warmup_epochs, published, n_classes in (
        ("cifar10", 10, 25, 10),
        ("cifar100", 30, 150, 100),
    ):
        settings = recipe("divide_mix", dataset)
        clf = DivideMixClassifier(**settings)
        assert (clf.max_epochs, clf.warmup_epochs, clf.lr) == (300, warmup_epochs, 0.02)
        assert clf.unlabelled_weight == pytest.approx(published / n_classes)
        assert settings["callbacks"][0][1].kwargs == {"milestones": [150], "gamma": 0.1}


@pytest.mark.parametrize("dataset", DATASETS)
def test_recipe_is_the_published_form(dataset: str) -> None:
    settings = recipe("flywheel", dataset)
    assert settings["temporal_momentum"] == 0.0
    assert settings["temperature"] == 1.0
    assert settings["zero_diagonal"] is False
    assert (settings["cr_weight"], settings["contrastive_weight"]) == (3.0, 0.025)
    assert settings["warmup_epochs"] == 10
    assert settings["optimizer__momentum"] == 0.9


@pytest.mark.parametrize(
    "dataset, epochs, batch_size, lr, weight_decay",
    [
        ("cifar10", 300, 128, 0.02, 5e-4),
        ("cifar100", 300, 128, 0.02, 5e-4),
        ("tiny_imagenet", 200, 32, 0.01, 5e-4),
        ("clothing1m", 80, 32, 1e-3, 1e-3),
        ("webvision50", 100, 32, 0.02, 5e-4),
    ],
)
def test_recipe_has_the_papers_numbers(
    dataset: str, epochs: int, batch_size: int, lr: float, weight_decay: float
) -> None:
    settings = recipe("flywheel", dataset)
    assert settings["max_epochs"] == epochs
    assert settings["batch_size"] == batch_size
    assert settings["lr"] == lr
    assert settings["optimizer__weight_decay"] == weight_decay


def test_schedule__cifar__follows_a_cosine_to_zero() -> None:
    rates = rates_of_a_fit(recipe("flywheel", "cifar10"))
    assert len(rates) == 300
    expected = [0.02 * (1 + np.cos(np.pi * epoch / 300)) / 2 for epoch in range(300)]
    assert rates == pytest.approx(expected)


@pytest.mark.parametrize(
    "dataset, expected",
    [
        (
            "tiny_imagenet",
            {0: 0.01, 99: 0.01, 100: 0.005, 125: 0.0025, 199: 0.000625},
        ),
        ("clothing1m", {0: 1e-3, 39: 1e-3, 40: 1e-4, 79: 1e-4}),
        ("webvision50", {0: 0.02, 49: 0.02, 50: 0.01, 75: 0.005, 99: 0.005}),
    ],
)
def test_schedule__steps__start_at_the_papers_epochs(
    dataset: str, expected: dict[int, float]
) -> None:
    rates = rates_of_a_fit(recipe("flywheel", dataset))
    assert {epoch: rates[epoch] for epoch in expected} == pytest.approx(expected)


def test_recipe__called_twice__shares_no_callback() -> None:
    first, second = (recipe("flywheel", "clothing1m")["callbacks"] for _ in range(2))
    assert first[0][1] is not second[0][1]


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("flywhel", "cifar10"), "method must be one of 'flywheel'.*Did you mean 'flywheel'"),
        (("flywheel", "cifar-10"), "dataset must be one of .*Did you mean 'cifar10'"),
    ],
)
def test_recipe__unknown_name__lists_what_there_is(
    arguments: tuple[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        recipe(*arguments)
