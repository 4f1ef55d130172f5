import re
from functools import partial
from typing import Any

import numpy as np
import pytest

from noisyfit import CrossEntropyClassifier, EchoSelect
from noisyfit.benchmark import echo as module
from noisyfit.benchmark.echo import main, n_kept
from noisyfit.nn.generators import ConditionalDiffusion


def test_n_kept__is_the_longest_prefix_that_is_pure_enough() -> None:
    wrong = np.array([False, False, True, False, False, True])
    scores = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert n_kept(wrong, scores, 1.0) == 2
    assert n_kept(wrong, scores, 0.8) == 5
    assert n_kept(wrong, scores, 0.6) == 6
    assert n_kept(~wrong, scores, 0.9) == 0


def test_unknown_section__is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["detct"])
    assert "invalid choice: 'detct'" in capsys.readouterr().err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Few steps of the generator, and arguments for few rows."""
    generator = ConditionalDiffusion(n_train_steps=150, n_steps=5, width=64)
    monkeypatch.setattr(module, "EchoSelect", partial(EchoSelect, generator))
    monkeypatch.setattr(module, "THRESHOLDS", (-1.0, 0.9))
    few: dict[str, Any] = {"max_epochs": 2, "random_state": 0}
    baseline = partial(CrossEntropyClassifier, **few)
    monkeypatch.setattr(module, "CrossEntropyClassifier", baseline)
    settings: dict[str, Any] = {"by small loss": {"rating": baseline(), "include_modified": "all"}}
    monkeypatch.setattr(module, "SETTINGS", settings)
    return ["--rows", "150", "--noise", "instance", "--seeds", "0"]


def test_thresholds__higher_ones_keep_less(
    quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["thresholds", *quick])
    said = capsys.readouterr().out
    lines = re.findall(r"threshold (\S+): keeps (\d+) %, (\S+) % of them right", said)
    assert [float(threshold) for threshold, _, _ in lines] == [-1.0, 0.9]
    assert int(lines[0][1]) == 100 > int(lines[1][1])
    assert float(lines[0][2]) == pytest.approx(60, abs=12)  # 40 % of the labels are wrong


def test_table3__instance_dependent_noise_and_small_loss__are_compared_with_cross_entropy(
    quick: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["table3", *quick])
    said = capsys.readouterr().out
    assert "digits instance 40%" in said
    assert re.search(r"by small loss +\d+\.\d \+/- .*; over cross-entropy", said)
