"""The demonstration ``noisyfit demo``: real digits and tables in under a minute."""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import train_test_split
from skorch.callbacks import Callback
from tqdm import tqdm

from noisyfit import noise
from noisyfit.benchmark.cells import Problem
from noisyfit.benchmark.contenders import BASELINE, make, package_methods
from noisyfit.benchmark.measuring import one_thread
from noisyfit.benchmark.usage import as_usage_errors
from noisyfit.exceptions import NoisyFitWarning
from noisyfit.metrics import detection_auroc

METHODS = {"cross-entropy": BASELINE, "flywheel": "flywheel"}
NOISES = {"pairflip": noise.pairflip, "symmetric": noise.symmetric}
NOISE_RATE = 0.4
TABLES = {"wine": (load_wine, 0.4), "breast cancer": (load_breast_cancer, 0.3)}  # and noise rates
TABLE_SEEDS = range(3)
COLUMNS, ROWS = 6, 4
SCALE = 13  # pixels per pixel of a digit, which has 8 x 8 and here a margin of one
CARD_WIDTH, CARD_HEIGHT = 168, 200
GAP, HEADER = 14, 92
PAPER, CARD, INK, GREY = "#eef1f5", "#ffffff", "#1d2733", "#5b6775"
WRONG, RIGHT = "#b3261e", "#1b6e3c"


class Measures(NamedTuple):
    """What is reported of a fit."""

    accuracy: float
    auroc: float
    seconds: float


class Suspects(NamedTuple):
    """The least credible labels, worst first, and what the model suggests in their place."""

    images: NDArray[Any]
    given: NDArray[Any]
    suggested: NDArray[Any]
    true: NDArray[Any]


def compare_two(output: Path, epochs: int | None) -> None:
    """Print how well cross-entropy and the flywheel do, and draw the most suspicious digits."""
    with one_thread():
        suspects, n_train = _compare_on_digits(epochs)
        _compare_on_tables(epochs)
    n_wrong = int((suspects.given != suspects.true).sum())
    n_repaired = int((suspects.suggested == suspects.true).sum())
    lines = (
        f"The {len(suspects.given)} most suspicious of {n_train} labels, "
        f"{_percent(NOISE_RATE)} symmetric noise",
        f"{n_wrong} of these labels are truly wrong, and {n_repaired} suggestions are the truth",
    )
    with as_usage_errors((OSError,)):
        draw_suspects(suspects, *lines).save(output, format="PNG")
    print(f"\n{lines[0]}: {n_wrong} are truly wrong, {n_repaired} suggestions are the truth.")
    print(f"Picture: {output.absolute()}")
    print("\nYour own data: noisyfit audit people.csv --label COLUMN --out findings")
    print("In Python: noisyfit.audit(X, y).issues_, or noisyfit.FlywheelClassifier().fit(X, y)")


def compare_all(epochs: int | None) -> None:
    """Fit every method of the package to the same noisy digits and print a line for each."""
    problem = _problem(load_digits, noise.symmetric, NOISE_RATE)
    print(
        f"{len(problem.X)} digits with {_percent(NOISE_RATE)} symmetric noise, "
        f"{len(problem.X_test)} clean digits.\n"
    )
    _print_head(f"{'method':<18}")
    with one_thread():
        for name in package_methods():
            clf = make(name, max_epochs=epochs, random_state=0)
            _print_line(f"{name:<18}", _fit(clf, problem))


def _compare_on_digits(epochs: int | None) -> tuple[Suspects, int]:
    """Fit both methods with both kinds of noise; the suspects are those of the last fit."""
    problems = {
        f"{kind} {_percent(NOISE_RATE)}": _problem(load_digits, add_noise, NOISE_RATE)
        for kind, add_noise in NOISES.items()
    }
    problem = next(iter(problems.values()))
    print(
        f"{len(problem.X)} digits with noisy labels, {len(problem.X_test)} clean digits for the "
        "test.\n"
    )
    found = []
    with _progress(len(problems) * len(METHODS)) as callback:
        for title, problem in problems.items():
            for name, method in METHODS.items():
                clf = make(method, max_epochs=epochs, random_state=0)
                measures = _fit(clf.set_params(callbacks=[callback]), problem)
                found.append((f"{title:<20}{name:<15}", measures))
    _print_head(f"{'noise':<20}{'method':<15}")
    for line in found:
        _print_line(*line)
    print()
    worst = clf.label_quality_.argsort(kind="stable")[: COLUMNS * ROWS]
    suggested = clf.classes_[clf.label_distribution_[worst].argmax(1)]
    images = problem.X[worst].reshape(-1, 8, 8)
    suspects = Suspects(images, problem.y[worst], suggested, problem.y_clean[worst])
    return suspects, len(problem.X)


def _compare_on_tables(epochs: int | None) -> None:
    """Fit both methods to small tables, averaged over splits: digits are an easy case."""
    _print_head(f"{'symmetric noise':<20}{'method':<15}")
    n_corrected = 0
    for data, (load, rate) in TABLES.items():
        for name, method in METHODS.items():
            fits = [make(method, max_epochs=epochs, random_state=seed) for seed in TABLE_SEEDS]
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The warm-up", NoisyFitWarning)  # said below
                found = [
                    _fit(clf, _problem(load, noise.symmetric, rate, seed))
                    for clf, seed in zip(fits, TABLE_SEEDS, strict=True)
                ]
            n_corrected += sum(getattr(clf, "warmup_epochs_", 0) == clf.n_iter_ for clf in fits)
            title = f"{data} {_percent(rate)}"
            _print_line(f"{title:<20}{name:<15}", Measures(*np.mean(found, axis=0)))
    if n_corrected:
        print(
            f"\nIn {n_corrected} of these fits the networks never began to memorise; there the "
            "flywheel is\ncross-entropy, corrected for how classes are mistaken for each other."
        )


def _problem(load: Any, add_noise: Callable[..., Any], rate: float, seed: int = 0) -> Problem:
    """Split some data, and add noise to the 70 % used for training."""
    X, y = load(return_X_y=True)
    X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, stratify=y, random_state=seed)
    labels = add_noise(y, rate, random_state=seed).labels
    return Problem(X, labels, y, X_test=X_test, y_test=y_test)


def _fit(clf: Any, problem: Problem) -> Measures:
    start = time.perf_counter()
    clf.fit(problem.X, problem.y)
    seconds = time.perf_counter() - start
    auroc = detection_auroc(problem.y != problem.y_clean, clf.label_quality_)
    return Measures(clf.score(problem.X_test, problem.y_test), auroc, seconds)


@contextmanager
def _progress(n_fits: int) -> Iterator[Callback]:
    """Yield a callback that advances one bar at each epoch; there is no bar without a terminal."""

    class Advance(Callback):
        def on_train_begin(self, net: Any, **kwargs: Any) -> None:
            bar.total = n_fits * net.max_epochs_

        def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
            bar.update()

    quiet = not sys.stderr.isatty()
    with tqdm(desc="Training", unit=" epochs", leave=False, disable=quiet) as bar:
        yield Advance()


def _print_head(columns: str) -> None:
    head = f"{columns}{'test accuracy %':>15}{'AUROC wrong labels':>20}{'seconds':>9}"
    print(f"{head}\n{'-' * len(head)}")


def _print_line(columns: str, of: Measures) -> None:
    figures = f"{100 * of.accuracy:>15.1f}{of.auroc:>20.3f}{of.seconds:>9.1f}"
    print(f"{columns}{figures}", flush=True)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def draw_suspects(suspects: Suspects, title: str, subtitle: str) -> Image.Image:
    """Draw one card per digit, six to a row, with its given and its suggested label.

    Parameters
    ----------
    suspects : Suspects
        Images of shape (n_samples, 8, 8) with values 0 to 16.
    title, subtitle : str
        Two lines above the cards.

    Returns
    -------
    PIL.Image.Image
    """
    n_rows = -(-len(suspects.given) // COLUMNS)
    size = (
        COLUMNS * (CARD_WIDTH + GAP) + GAP,
        HEADER + n_rows * (CARD_HEIGHT + GAP),
    )
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, 16), title, INK, ImageFont.load_default(27))
    draw.text((GAP, 54), subtitle, GREY, ImageFont.load_default(19))
    for i in range(len(suspects.given)):
        left = GAP + i % COLUMNS * (CARD_WIDTH + GAP)
        top = HEADER + i // COLUMNS * (CARD_HEIGHT + GAP)
        corner = (left + CARD_WIDTH - 1, top + CARD_HEIGHT - 1)
        draw.rounded_rectangle(((left, top), corner), radius=8, fill=CARD)
        digit = _enlarged(suspects.images[i])
        sheet.paste(digit, (left + (CARD_WIDTH - digit.width) // 2, top + 6))
        given, suggested = f"given {suspects.given[i]}", f"suggested {suspects.suggested[i]}"
        middle = left + CARD_WIDTH / 2
        draw.text((middle, top + 153), given, WRONG, ImageFont.load_default(20), anchor="mm")
        draw.text((middle, top + 179), suggested, RIGHT, ImageFont.load_default(20), anchor="mm")
    return sheet


def _enlarged(image: NDArray[Any]) -> Image.Image:
    """Return the image in dark ink on white, upscaled smoothly."""
    levels = (255 - 14 * np.pad(image, 1)).clip(0, 255).astype(np.uint8)
    side = SCALE * len(levels)
    return Image.fromarray(levels).resize((side, side), Image.Resampling.BICUBIC)
