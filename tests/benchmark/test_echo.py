import numpy as np
import pytest

from noisyfit.benchmark.echo import main, n_kept


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
