from typing import Any

import numpy as np
import pytest
from sklearn.datasets import make_blobs
from skorch.callbacks import Callback

from noisyfit import (
    CLIDMetaClassifier,
    CrossEntropyClassifier,
    DivideMixClassifier,
    EchoAlignClassifier,
    ELRClassifier,
    FlywheelClassifier,
    HRPClassifier,
    RLDClassifier,
)
from noisyfit.benchmark.papers import RECIPES
from noisyfit.benchmark.recipes import recipe

CLASSES: dict[str, Any] = {
    "flywheel": FlywheelClassifier,
    "rld": RLDClassifier,
    "clid": CLIDMetaClassifier,
    "vri": CLIDMetaClassifier,
    "hrp": HRPClassifier,
    "echoalign": EchoAlignClassifier,
    "echoalign_released": EchoAlignClassifier,
    "elr": ELRClassifier,
    "elr_plus": ELRClassifier,
    "divide_mix": DivideMixClassifier,
    "divide_mix_vri": DivideMixClassifier,
}
DATASETS = list(RECIPES["flywheel"])
ALL = [(method, dataset) for method in RECIPES for dataset in RECIPES[method]]
every_recipe = pytest.mark.parametrize("method, dataset", ALL)


def cosine(lr: float, period: int, n_epochs: int, floor: float = 0.0) -> list[float]:
    """Down in a period, up in the next one."""
    shares = [(1 + np.cos(np.pi * epoch / period)) / 2 for epoch in range(n_epochs)]
    return [floor + (lr - floor) * share for share in shares]


def restarts(lr: float, period: int, n_epochs: int, floor: float) -> list[float]:
    return (cosine(lr, period, period, floor) * n_epochs)[:n_epochs]


def steps(lr: float, factor: float, milestones: list[int], n_epochs: int) -> list[float]:
    return [lr * factor ** sum(epoch >= at for at in milestones) for epoch in range(n_epochs)]


RATES: dict[tuple[str, str], list[float]] = {
    # "trained for 300 epochs [...] initially 0.02 [...] cosine annealing schedule without restart"
    ("flywheel", "cifar10"): cosine(0.02, 300, 300),
    ("flywheel", "cifar100"): cosine(0.02, 300, 300),
    # "initial learning rate of 0.01 [...] decay factor to 0.5 per 25 epochs after 100 epochs [...]
    # 200 epochs"
    ("flywheel", "tiny_imagenet"): steps(0.01, 0.5, [100, 125, 150, 175], 200),
    # "starts with 0.001 and reduces by a factor of 10 after 40 epochs [...] 80 epochs"
    ("flywheel", "clothing1m"): steps(0.001, 0.1, [40], 80),
    # "initial learning rate is 0.02 and its decaying rate is 0.5/25 epochs after 50 epochs [...]
    # 100 epochs"
    ("flywheel", "webvision50"): steps(0.02, 0.5, [50, 75], 100),
    # "200 epochs [...] initial learning rate of 0.01 was adjusted to 0.001 at the midpoint"
    ("rld", "cifar10"): steps(0.01, 0.1, [100], 200),
    ("rld", "cifar100"): steps(0.01, 0.1, [100], 200),
    ("rld", "animal10n"): steps(0.01, 0.1, [100], 200),
    ("rld", "red_mini_imagenet"): steps(0.01, 0.1, [100], 200),
    ("rld", "food101n"): steps(0.01, 0.1, [100], 200),
    # "Cosine Annealing strategy with a 10-epoch period [...] initial learning rates are 0.02 for
    # PreResNet-18 and 0.05 for WRN-28-10", "150 epochs", "100 epochs"; to 0.001 in the code
    ("clid", "cifar10"): cosine(0.05, 10, 100, 1e-3),
    ("clid", "cifar100"): cosine(0.05, 10, 100, 1e-3),
    ("vri", "cifar10"): cosine(0.02, 10, 150, 1e-3),
    ("vri", "cifar100"): cosine(0.02, 10, 150, 1e-3),
    ("vri", "cifar10n"): cosine(0.02, 10, 150, 1e-3),
    ("vri", "cifar100n"): cosine(0.02, 10, 150, 1e-3),
    # "initial learning rate is set to 0.1 [...] Cosine Annealing [...] with a 160-epoch period"
    ("vri", "animal10n"): cosine(0.1, 160, 160),
    # "learning rate is fixed at 0.0005 [...] All the models were trained for 10 epochs"
    ("clid", "clothing1m"): [5e-4] * 10,
    ("vri", "clothing1m"): [5e-4] * 10,
    # "initial learning rate of 0.05 [...] factor of 0.1 at the 250th and 400th"; 600 of ProMix
    ("hrp", "cifar10"): steps(0.05, 0.1, [250, 400], 600),
    ("hrp", "cifar100"): steps(0.05, 0.1, [250, 400], 600),
    ("hrp", "animal10n"): steps(0.05, 0.1, [250, 400], 600),
    # "learning rate 0.1, lr decay 100th and 150th, training epochs 200"; the released code goes on
    # for 40 epochs in a fit of its own
    ("echoalign", "cifar10"): steps(0.1, 0.1, [100, 150], 200),
    ("echoalign", "cifar10n"): steps(0.1, 0.1, [100, 150], 200),
    ("echoalign", "cifar100"): steps(0.1, 0.1, [100, 150], 200),
    ("echoalign_released", "cifar10"): steps(0.1, 0.1, [100, 150], 200),
    ("echoalign_released", "cifar10n"): steps(0.1, 0.1, [100, 150], 200),
    ("echoalign_released", "cifar100"): steps(0.1, 0.1, [100, 150], 200),
    # Cosine annealing with restarts every 10 epochs, to 0.001, 150 epochs; a tenth at 80 and 120
    ("elr", "cifar10"): restarts(0.02, 10, 150, 1e-3),
    ("elr", "cifar100"): steps(0.02, 0.1, [80, 120], 150),
    # "lr": 0.02, "milestones": [150], "epochs": 200; "milestones": [200], "epochs": 250
    ("elr_plus", "cifar10"): steps(0.02, 0.1, [150], 200),
    ("elr_plus", "cifar100"): steps(0.02, 0.1, [200], 250),
    # "initial learning rate as 0.02, and reduce it by a factor of 10 after 150 epochs [...] 300"
    ("divide_mix", "cifar10"): steps(0.02, 0.1, [150], 300),
    ("divide_mix", "cifar100"): steps(0.02, 0.1, [150], 300),
    # "0.03 and decays to 1/10 of its value at 120 and 180 epochs [...] duration of 300 epochs"
    ("divide_mix_vri", "cifar10n"): steps(0.03, 0.1, [120, 180], 300),
    ("divide_mix_vri", "cifar100n"): steps(0.03, 0.1, [120, 180], 300),
}
"""Learning rate of every epoch, from the sentences of the papers."""


class Schedule(CrossEntropyClassifier):
    """Goes through the epochs of a schedule, which is that of all methods, and learns nothing."""

    def _fit(self, data: Any) -> None:
        self.rates_ = []
        for _ in self._epochs():
            self.optimizer_.step()
            self.rates_.append(self.optimizer_.param_groups[0]["lr"])


def small(settings: dict[str, Any], **params: Any) -> dict[str, Any]:
    """The settings with a network for small tables."""
    own = {key: value for key, value in settings.items() if not key.startswith("module")}
    return own | {"module": "mlp", "module__width": 4} | params


@every_recipe
def test_recipe__every_epoch__has_the_learning_rate_of_the_paper(method: str, dataset: str) -> None:
    settings = recipe(method, dataset)
    if "estimator" in settings:
        settings = settings["estimator"].get_params(deep=False)
    names = ("lr", "lr_schedule", "max_epochs", "callbacks")
    clf = Schedule(**small({name: settings[name] for name in names if name in settings}))
    X = np.random.default_rng(0).normal(size=(8, 2))
    assert clf.fit(X, [0, 1] * 4).rates_ == pytest.approx(RATES[method, dataset])


def test_recipe__table_of_rates__has_no_other_recipes() -> None:
    assert set(RATES) == set(ALL)


@every_recipe
def test_recipe__is_taken_by_its_class(method: str, dataset: str) -> None:
    settings, cls = recipe(method, dataset), CLASSES[method]
    assert {name for name in settings if "__" not in name} <= set(cls().get_params())
    prefixes = {name.partition("__")[0] for name in settings if "__" in name}
    assert prefixes <= {"module", "optimizer"}
    taken = cls(**settings).get_params(deep=False)
    assert {name: taken[name] for name in settings} == settings


class RecordRates(Callback):  # type: ignore[misc]
    """Keeps the learning rates of all optimizers with which each epoch starts."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_epoch_begin(self, net: Any, **kwargs: Any) -> None:
        optimizers = [getattr(net, f"{name}_") for name in net._optimizers]
        self.rates.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])


@pytest.mark.parametrize("method", [name for name in RECIPES if "echoalign" not in name])
def test_recipe__every_method__trains_all_its_networks_on_the_schedule(method: str) -> None:
    X, y = make_blobs(120, 4, centers=2, random_state=0)
    record, settings = RecordRates(), recipe(method, next(iter(RECIPES[method])))
    settings = small(settings, max_epochs=3)
    settings["callbacks"] = [*settings.get("callbacks", []), ("record", record)]
    if "warmup_epochs" in settings:
        settings["warmup_epochs"] = 1
    trusted = {"X_meta": X[:60], "y_meta": y[:60]} if method in ("clid", "vri", "hrp") else {}
    clf = CLASSES[method](**settings, random_state=0).fit(X, y, **trusted)
    assert np.isfinite(clf.predict_proba(X)).all()
    shares = np.array(record.rates) / record.rates[0]
    assert len(shares) == 3
    assert shares == pytest.approx(np.repeat(shares[:, :1], shares.shape[1], 1))


@pytest.mark.parametrize(
    "dataset, module, warmup_epochs",
    [
        ("cifar10", "resnet34", 10),
        ("cifar100", "resnet50", 30),
        ("animal10n", "vgg19_bn", 30),
        ("red_mini_imagenet", "preact_resnet18", 30),
        ("food101n", "resnet50", 30),
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


@pytest.mark.parametrize(
    "dataset, module, epochs, batch_size, meta_lr",
    [
        ("cifar10", "preact_resnet18", 150, 100, 0.01),
        ("cifar100", "preact_resnet18", 150, 100, 0.01),
        ("cifar10n", "resnet34", 150, 100, 0.01),
        ("cifar100n", "resnet34", 150, 100, 0.01),
        ("animal10n", "vgg19_bn", 160, 128, 0.01),
        ("clothing1m", "resnet50", 10, 100, 0.01),
    ],
)
def test_recipe_of_vri__has_the_numbers_of_appendix_c(
    dataset: str, module: str, epochs: int, batch_size: int, meta_lr: float
) -> None:
    clf = CLIDMetaClassifier(**recipe("vri", dataset))
    assert (clf.meta_model, clf.module, clf.max_epochs) == ("vri", module, epochs)
    assert (clf.batch_size, clf.meta_batch_size, clf.meta_lr) == (batch_size, 100, meta_lr)
    assert (clf.clid_temperature, clf.n_snapshots, clf.meta_objective) == (0.5, 5, "clid")


@pytest.mark.parametrize(
    "dataset, module, epochs, meta_lr",
    [
        ("cifar10", "wrn_28_10", 100, CLIDMetaClassifier().meta_lr),
        ("cifar100", "wrn_28_10", 100, CLIDMetaClassifier().meta_lr),
        ("clothing1m", "resnet50", 10, 0.01),
    ],
)
def test_recipe_of_clid__has_the_numbers_of_appendix_c(
    dataset: str, module: str, epochs: int, meta_lr: float
) -> None:
    clf = CLIDMetaClassifier(**recipe("clid", dataset))
    assert (clf.meta_model, clf.module, clf.max_epochs) == ("wnet", module, epochs)
    assert (clf.batch_size, clf.meta_batch_size, clf.meta_lr) == (100, 100, meta_lr)


def test_recipe_of_hrp__is_the_published_form() -> None:
    for dataset in RECIPES["hrp"]:
        settings = recipe("hrp", dataset)
        assert (settings["norm"], settings["unit_gradients"]) == ("sum", False)
        assert (settings["meta_objective"], settings["temporal_momentum"]) == ("ce", 0.0)
        assert settings["callbacks"][0][1].kwargs == {"milestones": [250, 400], "gamma": 0.1}


@pytest.mark.parametrize("method", ["clid", "vri"])
def test_recipe_of_clid__clothing1m__starts_from_the_weights_of_the_flywheels(method: str) -> None:
    weights = recipe("flywheel", "clothing1m")["module__weights"]
    assert recipe(method, "clothing1m")["module__weights"] == weights


def test_recipe_of_echoalign__is_algorithm_1_and_not_the_released_code() -> None:
    for method, expected in (
        ("echoalign", ("rejected", 0, 1, 0)),
        ("echoalign_released", ("all", 0, "balanced", 40)),
    ):
        for dataset, module in (
            ("cifar10", "resnet18"),
            ("cifar10n", "resnet18"),
            ("cifar100", "resnet34"),
        ):
            clf = EchoAlignClassifier(**recipe(method, dataset))
            weights = clf.rejected_weight, clf.modified_weight
            assert (clf.include_modified, *weights, clf.finetune_epochs) == expected
            selector: Any = clf.selector
            assert (selector.select_by, selector.threshold, selector.n_rounds) == (
                "similarity",
                0.52,
                1,
            )
            assert clf.include_originals
            assert (clf.estimator.module, clf.estimator.batch_size) == (module, 128)
            assert clf.estimator.get_params()["optimizer__weight_decay"] == 1e-4
            assert recipe(method, dataset)["estimator"] is not clf.estimator


def test_recipe_of_elr__is_the_published_form() -> None:
    first, second = (recipe("elr", dataset) for dataset in ("cifar10", "cifar100"))
    assert (first["regularization"], first["target_momentum"]) == (3.0, 0.7)
    assert (second["regularization"], second["target_momentum"]) == (7.0, 0.9)
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


def test_recipe_of_elr_plus__has_the_numbers_of_the_released_configurations() -> None:
    for dataset, regularization, momentum, epochs in (
        ("cifar10", 3.0, 0.7, 200),
        ("cifar100", 7.0, 0.9, 250),
    ):
        settings = recipe("elr_plus", dataset)
        clf = ELRClassifier(**settings)
        assert (clf.n_networks, clf.mixup_alpha, clf.module) == (2, 1.0, "preact_resnet18")
        assert (clf.regularization, clf.target_momentum) == (regularization, momentum)
        assert (clf.max_epochs, clf.batch_size) == (epochs, 128)
        assert settings["optimizer__weight_decay"] == 5e-4


def test_recipe_of_dividemix_with_clid__has_the_numbers_of_appendix_c() -> None:
    for dataset, warmup_epochs, n_classes in (("cifar10n", 10, 10), ("cifar100n", 30, 100)):
        clf = DivideMixClassifier(**recipe("divide_mix_vri", dataset))
        assert (clf.meta_model, clf.meta_objective, clf.module) == ("vri", "clid", "resnet34")
        assert (clf.max_epochs, clf.batch_size, clf.meta_batch_size) == (300, 128, 100)
        assert (clf.warmup_epochs, clf.meta_lr) == (warmup_epochs, 0.01)
        assert clf.unlabelled_weight == pytest.approx(150 / n_classes)


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
