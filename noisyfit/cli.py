"""The command ``noisyfit``: a demonstration on real digits and tables in under a minute."""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from noisyfit import __version__
from noisyfit.benchmark import usage
from noisyfit.benchmark.command import add_command

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

NOISE_RATE = 0.4
TABLES = {"wine": 0.4, "breast cancer": 0.3}  # and their noise rates
TABLE_SEEDS = range(3)
QUICK_EPOCHS = 6
COLUMNS, ROWS = 6, 4
SCALE = 13  # a digit has 8 x 8 pixels, and here a margin of one
CARD_WIDTH, CARD_HEIGHT = 168, 200
GAP, HEADER = 14, 92
PAPER, CARD, INK, GREY = "#eef1f5", "#ffffff", "#1d2733", "#5b6775"
WRONG, RIGHT = "#b3261e", "#1b6e3c"


class Result(NamedTuple):
    """One row of a table."""

    data: str
    method: str
    accuracy: float
    auroc: float
    seconds: float


class Suspects(NamedTuple):
    """The least credible labels, worst first, and what the model suggests instead."""

    images: NDArray[Any]
    given: NDArray[Any]
    suggested: NDArray[Any]
    true: NDArray[Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    options = _parser().parse_args(argv)
    try:
        status: int = options.run(options)
    except usage.UsageError as error:
        options.parser.error(str(error))
    return status


def _run_demo(options: argparse.Namespace) -> int:
    epochs = QUICK_EPOCHS if options.quick else options.epochs
    if options.all:
        _demo_all(epochs)
        return 0
    usage.check_writable(options.output, "--output")
    _demo(options.output, epochs)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="noisyfit", description="Learn the right classifier from wrong labels."
    )
    parser.add_argument("--version", action="version", version=f"noisyfit {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    demo = commands.add_parser(
        "demo",
        help="find the wrong labels among 1257 handwritten digits",
        description="Compare plain cross-entropy with the flywheel on scikit-learn's digits with "
        "40 % wrong labels and on two of its tables, and draw the most suspicious digits. Needs no "
        "network.",
    )
    demo.add_argument(
        "--output", type=Path, default=Path("noisyfit-demo.png"), help="picture to write, a PNG"
    )
    demo.add_argument(
        "--all", action="store_true", help="every method of the package, and no picture"
    )
    length = demo.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=usage.epochs, metavar="N", help="epochs of each fit")
    length.add_argument(
        "--quick", action="store_true", help=f"{QUICK_EPOCHS} epochs: too few for good figures"
    )
    demo.set_defaults(run=_run_demo, parser=demo)
    add_command(commands)
    return parser


def _demo(output: Path, epochs: int | None) -> None:
    with _one_thread():
        results, n_train, suspects = _compare(epochs)
        print(f"{_table('noise', results)}\n")
        print(_table("symmetric noise", _compare_on_tables(epochs)))
    n_wrong = int((suspects.given != suspects.true).sum())
    n_repaired = int((suspects.suggested == suspects.true).sum())
    lines = (
        f"The {len(suspects.given)} most suspicious of {n_train} labels, "
        f"{NOISE_RATE:.0%} symmetric noise".replace("%", " %"),
        f"{n_wrong} of these labels are truly wrong, and {n_repaired} suggestions are the truth",
    )
    with usage.as_usage_errors((OSError,)):
        draw_suspects(suspects, *lines).save(output, format="PNG")
    print(f"\n{lines[0]}: {n_wrong} are truly wrong, {n_repaired} suggestions are the truth.")
    print(f"Picture: {output.absolute()}")


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one core: matrices this small gain nothing from two, and lose if one is busy."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _compare(epochs: int | None) -> tuple[list[Result], int, Suspects]:
    """Fit both methods under both kinds of noise; the suspects are those of the last fit."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from noisyfit import noise
    from noisyfit.metrics import detection_auroc

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.3, stratify=y, random_state=0
    )
    methods = _demo_methods()
    kinds = {"pairflip 40 %": noise.pairflip, "symmetric 40 %": noise.symmetric}
    print(f"{len(X_train)} digits with noisy labels, {len(X_test)} clean digits for the test.\n")
    results = []
    with _progress(len(kinds) * len(methods)) as callback:
        for kind, add_noise in kinds.items():
            noisy = add_noise(y_train, NOISE_RATE, random_state=0)
            for name, method in methods.items():
                start = time.perf_counter()
                clf = method(max_epochs=epochs, callbacks=[callback], random_state=0)
                clf.fit(X_train, noisy.labels)
                seconds = time.perf_counter() - start
                auroc = detection_auroc(noisy.flipped, clf.label_quality_)
                results.append(Result(kind, name, clf.score(X_test, y_test), auroc, seconds))
    worst = clf.label_quality_.argsort(kind="stable")[: COLUMNS * ROWS]
    suggested = clf.classes_[clf.label_distribution_[worst].argmax(1)]
    images = X_train[worst].reshape(-1, 8, 8)
    return results, len(X_train), Suspects(images, noisy.labels[worst], suggested, y_train[worst])


def _demo_methods() -> dict[str, Any]:
    from noisyfit import CrossEntropyClassifier, FlywheelClassifier

    return {"cross-entropy": CrossEntropyClassifier, "flywheel": FlywheelClassifier}


def _compare_on_tables(epochs: int | None) -> list[Result]:
    """Fit both methods on small tables, as a mean over splits: digits are an easy case."""
    import numpy as np
    from sklearn.datasets import load_breast_cancer, load_wine
    from sklearn.model_selection import train_test_split

    from noisyfit import noise
    from noisyfit.metrics import detection_auroc

    loaders, results = {"wine": load_wine, "breast cancer": load_breast_cancer}, []
    for data, rate in TABLES.items():
        X, y = loaders[data](return_X_y=True)
        for name, method in _demo_methods().items():
            found = []
            for seed in TABLE_SEEDS:
                X_train, X_test, y_train, y_test = train_test_split(
                    X, y, test_size=0.3, stratify=y, random_state=seed
                )
                noisy = noise.symmetric(y_train, rate, random_state=seed)
                start = time.perf_counter()
                clf = method(max_epochs=epochs, random_state=seed).fit(X_train, noisy.labels)
                seconds = time.perf_counter() - start
                auroc = detection_auroc(noisy.flipped, clf.label_quality_)
                found.append((clf.score(X_test, y_test), auroc, seconds))
            results.append(
                Result(f"{data} {rate:.0%}".replace("%", " %"), name, *np.mean(found, 0))
            )
    return results


def _demo_all(epochs: int | None) -> None:
    """Fit every method of the package on the same noisy digits and print a line for each."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    from noisyfit import noise
    from noisyfit.benchmark.contenders import make, package_methods
    from noisyfit.metrics import detection_auroc

    X, y = load_digits(return_X_y=True)
    X_train, X_test, y_train, y_test = train_test_split(
        X, y, test_size=0.3, stratify=y, random_state=0
    )
    noisy = noise.symmetric(y_train, NOISE_RATE, random_state=0)
    share = f"{NOISE_RATE:.0%}".replace("%", " %")
    print(f"{len(X_train)} digits with {share} symmetric noise, {len(X_test)} clean digits.\n")
    head = f"{'method':<18}{'test accuracy %':>15}{'AUROC wrong labels':>20}{'seconds':>9}"
    print(f"{head}\n{'-' * len(head)}")
    with _one_thread():
        for name in package_methods():
            start = time.perf_counter()
            clf = make(name, max_epochs=epochs, random_state=0).fit(X_train, noisy.labels)
            seconds = time.perf_counter() - start
            auroc = detection_auroc(noisy.flipped, clf.label_quality_)
            score = 100 * clf.score(X_test, y_test)
            print(f"{name:<18}{score:>15.1f}{auroc:>20.3f}{seconds:>9.1f}", flush=True)


@contextmanager
def _progress(n_fits: int) -> Iterator[Any]:
    """Yield a callback that moves one bar by one at each epoch; no bar without a terminal."""
    from skorch.callbacks import Callback
    from tqdm import tqdm

    class Advance(Callback):
        def on_train_begin(self, net: Any, **kwargs: Any) -> None:
            bar.total = n_fits * net.max_epochs_

        def on_epoch_end(self, net: Any, **kwargs: Any) -> None:
            bar.update()

    quiet = not sys.stderr.isatty()
    with tqdm(desc="Training", unit=" epochs", leave=False, disable=quiet) as bar:
        yield Advance()


def _table(first: str, results: Sequence[Result]) -> str:
    head = (first, "method", "test accuracy %", "AUROC wrong labels", "seconds")
    rows = [
        (r.data, r.method, f"{100 * r.accuracy:.1f}", f"{r.auroc:.3f}", f"{r.seconds:.1f}")
        for r in results
    ]
    lines = [f"{a:<20}{b:<15}{c:>15}{d:>20}{e:>9}" for a, b, c, d, e in [head, *rows]]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def draw_suspects(suspects: Suspects, title: str, subtitle: str) -> Image:
    """Draw one card per digit with its given and its suggested label, six in a row.

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
    from PIL import Image, ImageDraw, ImageFont

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


def _enlarged(image: NDArray[Any]) -> Image:
    """Return dark ink on white, upscaled smoothly."""
    import numpy as np
    from PIL import Image

    levels = (255 - 14 * np.pad(image, 1)).clip(0, 255).astype(np.uint8)
    side = SCALE * len(levels)
    return Image.fromarray(levels).resize((side, side), Image.Resampling.BICUBIC)
