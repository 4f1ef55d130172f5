"""By what runs are known: values and code, not containers, addresses or names."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from noisyfit import CrossEntropyClassifier
from noisyfit.estimator.identity import code_of, fingerprint, fold

ROWS = np.arange(6.0).reshape(3, 2)
SHIFT = 1


class Holder:
    def __init__(self, value: Any) -> None:
        self.value = value


class Net(nn.Module):
    slope = 2.0

    def __init__(self, n_features: int, n_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(n_features, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.helped(self.layer(x)) * self.slope

    def helped(self, x: Tensor) -> Tensor:
        return shifted(x)


class Method(CrossEntropyClassifier):
    def _fit(self, data: Any) -> None:
        super()._fit(data)


def shifted(x: Tensor) -> Tensor:
    return x + SHIFT


def otherwise(x: Tensor) -> Tensor:
    return x - SHIFT


def make_net(n_features: int, n_classes: int) -> nn.Module:
    return Net(n_features, n_classes)


def seeded_net() -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Net(2, 3)


@pytest.mark.parametrize(
    "one, other",
    [
        (ROWS, np.asfortranarray(ROWS)),
        (ROWS, np.repeat(ROWS, 2, axis=0)[::2]),
        (ROWS, torch.as_tensor(ROWS).T.contiguous().T),
        (pd.DataFrame(ROWS), pd.DataFrame(ROWS).copy()),
        (pd.Series([1, 2]), pd.concat([pd.Series([1]), pd.Series([2])])),
        (np.array(["a", "b"], dtype=object), np.array(["a", "".join("b")], dtype=object)),
        (0.5, np.float64(0.5)),
        (Holder(ROWS), Holder(np.asfortranarray(ROWS))),
        ([ROWS, ROWS], [ROWS, ROWS.copy()]),
        (partial(round, ndigits=ROWS), partial(round, ndigits=np.asfortranarray(ROWS))),
    ],
    ids=[
        *("order", "strides", "tensor", "frame", "series", "objects", "number"),
        *("attribute", "shared", "partial"),
    ],
)
def test_fingerprint__of_the_same_values__is_the_same(one: Any, other: Any) -> None:
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    "one, other",
    [
        (Holder(1), Holder(2)),
        (partial(round, ndigits=1), partial(round, ndigits=2)),
        (TensorDataset(torch.arange(3)), TensorDataset(torch.tensor([1, 0, 2]))),
        (pd.DataFrame(ROWS), pd.DataFrame(ROWS[::-1])),
        (shifted, otherwise),
        (torch.zeros(2, dtype=torch.bfloat16), torch.ones(2, dtype=torch.bfloat16)),
    ],
    ids=[
        *("attribute", "partial", "order of a dataset", "order of a frame", "function"),
        "half precision",
    ],
)
def test_fingerprint__of_other_values__differs(one: Any, other: Any) -> None:
    assert fingerprint(one) != fingerprint(other)


def test_fingerprint__of_an_object_that_holds_itself__ends() -> None:
    one, other = Holder(ROWS), Holder(ROWS)
    one.self = one  # type: ignore[attr-defined]
    other.self = other  # type: ignore[attr-defined]
    assert fingerprint(one) == fingerprint(other)


def test_fold__tells_the_order_of_the_parts() -> None:
    assert fold([ROWS, -ROWS]) == fold([ROWS.copy(), -ROWS]) != fold([-ROWS, ROWS])


CHANGES: dict[str, tuple[Any, str, Any]] = {
    "forward": (Net, "forward", lambda self, x: self.layer(x)),
    "a method that it calls": (Net, "helped", lambda self, x: x),
    "a function that it calls": (sys.modules[__name__], "shifted", otherwise),
    "a constant of the class": (Net, "slope", 3.0),
    "a constant of the module": (sys.modules[__name__], "SHIFT", 2),
}
NETWORKS: dict[str, Any] = {
    "class": lambda: Net,
    "instance": seeded_net,
    "factory": lambda: make_net,
}


@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_fingerprint__of_a_network_that_computes_otherwise__differs(
    network: Any, change: tuple[Any, str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fingerprint(network())
    assert fingerprint(network()) == before
    monkeypatch.setattr(*change)
    assert fingerprint(network()) != before


def test_code_of__a_method_of_the_user__tells_changes_of_its_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = code_of(Method)
    monkeypatch.setattr(Method, "_fit", lambda self, data: None)
    assert code_of(Method) != before


def test_code_of__what_a_library_brings__is_left_to_its_version() -> None:
    assert [code_of(thing) for thing in (nn.Linear, CrossEntropyClassifier, Path, len)] == [[]] * 4


@pytest.mark.slow
def test_fingerprint__in_another_process__is_the_same() -> None:
    shifted(torch.zeros(1))
    for _ in range(100):  # Python rewrites functions that are called often
        seeded_net()(torch.zeros(1, 2))
    program = (
        f"from {__name__} import *; "
        "print(fingerprint(Net, seeded_net(), make_net, {'a', 'b', 'c'}, Holder(ROWS)))"
    )
    found = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    expected = fingerprint(Net, seeded_net(), make_net, {"a", "b", "c"}, Holder(ROWS))
    assert found.stdout.strip() == expected
