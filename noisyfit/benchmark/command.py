"""The commands ``noisyfit demo`` and ``noisyfit benchmark``, with their options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from noisyfit.benchmark import usage
from noisyfit.benchmark.usage import say_at_once

QUICK_EPOCHS = 6


def add_demo(commands: Any) -> None:
    """Add ``demo`` to the commands of ``noisyfit``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "demo",
        help="find the wrong labels among 1257 handwritten digits",
        description="Compare plain cross-entropy with the flywheel on scikit-learn's digits with "
        "40 % wrong labels and on two of its tables, and draw the most suspicious digits. Needs no "
        "network.",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("noisyfit-demo.png"), help="picture to write, a PNG"
    )
    parser.add_argument(
        "--all", action="store_true", help="every method of the package, and no picture"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--epochs", type=usage.epochs, metavar="N", help="epochs of each fit")
    length.add_argument(
        "--quick", action="store_true", help=f"{QUICK_EPOCHS} epochs: too few for good figures"
    )
    parser.set_defaults(run=run_demo, parser=parser)


def run_demo(options: argparse.Namespace) -> int:
    """Run the demonstration."""
    epochs = QUICK_EPOCHS if options.quick else options.epochs
    if not options.all:
        usage.check_writable(options.output, "--output")
    from noisyfit.benchmark import demo

    if options.all:
        demo.compare_all(epochs)
    else:
        demo.compare_two(options.output, epochs)
    return 0


def add_benchmark(commands: Any) -> None:
    """Add ``benchmark`` to the commands of ``noisyfit``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "benchmark",
        help="compare methods on data with noisy labels, also on your own",
        description="Fit every method on every data set, noise, rate and seed; write one row a fit "
        "to results.csv and a report beside it. A run that was stopped resumes: call "
        "it again. Data by name, except digits and synthetic, are read from the folder named by "
        "the environment variable NOISYFIT_DATA.",
    )
    _add_grid(parser)
    _add_settings(parser)
    parser.add_argument("--jobs", type=usage.count, default=1, help="workers, of one thread each")
    parser.add_argument(
        "--backend",
        choices=["loky", "threading", "dask", "ray"],
        default="loky",
        help="what runs them: processes or threads of this machine, or a cluster, which "
        "DASK_SCHEDULER_ADDRESS or RAY_ADDRESS names",
    )
    parser.add_argument("--device", type=usage.device, default="auto")
    parser.add_argument("--out", type=Path, default=Path("noisyfit-benchmark"), help="folder")
    parser.add_argument(
        "--again",
        nargs="+",
        default=[],
        metavar="METHOD",
        help="throw away what the folder holds of these methods, whose code has changed, and fit "
        "them anew",
    )
    parser.add_argument("--dry-run", action="store_true", help="say what it would cost, and stop")
    parser.set_defaults(run=run_benchmark, parser=parser)


def _add_grid(parser: argparse.ArgumentParser) -> None:
    """Add the options that are combined with one another."""
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["package"],
        help="names such as cross_entropy, cross_entropy_clean or sklearn+forest; 'package' (the "
        "default) for all of this package, 'all' for those beside it as well; hrp:base for a "
        "variant, hrp:all for all of a method",
    )
    parser.add_argument(
        "--data",
        nargs="+",
        default=["digits"],
        help="names such as digits, synthetic, fashion_mnist, cifar10n or trec; a CSV file, with "
        "--label; a folder that holds a folder of images for each class; tables, "
        "tables_development or tables_confirmation for sixteen real tables or half of them",
    )
    parser.add_argument("--label", metavar="COLUMN", help="column of the labels of a CSV file")
    parser.add_argument(
        "--noise",
        nargs="+",
        choices=["symmetric", "pairflip", "instance", "none"],
        default=["symmetric"],
        help="injected into clean labels; other labels are taken as they are",
    )
    parser.add_argument(
        "--rates",
        nargs="+",
        type=_rate,
        default=[0.4],
        help="shares of wrong labels; 'auto' is 0.4, and 0.3 for two classes",
    )
    parser.add_argument(
        "--labels",
        nargs="+",
        type=usage.count,
        default=[None],
        metavar="N",
        help="training rows that keep their label, in proportion to the classes; the others have "
        "none, and methods that need one leave them out; default: all",
    )
    parser.add_argument("--seeds", nargs="+", type=usage.seed, default=[0, 1, 2])


def _add_settings(parser: argparse.ArgumentParser) -> None:
    """Add the options that all fits share."""
    parser.add_argument("--rows", type=usage.count, help="training rows at most")
    parser.add_argument("--test-rows", type=usage.count, default=5000, help="at most, default 5000")
    parser.add_argument(
        "--epochs", type=usage.epochs, help="of every fit; default: each method's own"
    )
    parser.add_argument(
        "--holdout",
        type=usage.share,
        default=0.1,
        help="share of the rows that are left out of training, to choose an epoch on; default 0.1",
    )
    parser.add_argument(
        "--trusted",
        type=usage.count,
        metavar="N",
        help="training rows that are given their true label; methods that can use it are told",
    )
    parser.add_argument(
        "--module",
        metavar="NAME",
        help="network of all methods, such as preact_resnet18; default: that of the data",
    )
    parser.add_argument(
        "--features",
        metavar="NAME",
        help="replace images with the features of this pretrained network, such as "
        "efficientnet_lite0; they are kept in the folder of --out",
    )


def _rate(text: str) -> float | None:
    return None if text == "auto" else usage.share(text)


def run_benchmark(options: argparse.Namespace) -> int:
    """Run the grid and write the report; return 1 if a cell failed, 130 if interrupted."""
    from noisyfit.benchmark.contenders import method_names
    from noisyfit.benchmark.grid import run_grid, say_cost
    from noisyfit.benchmark.report import write_report

    with usage.as_usage_errors():
        grid = _grid(options)
        again = method_names(options.again)
    try:
        if options.dry_run:
            say_cost(grid, options.out, jobs=options.jobs, say=say_at_once)
            return 0
        failures = run_grid(
            grid,
            options.out,
            again=again,
            jobs=options.jobs,
            backend=options.backend,
            say=say_at_once,
        )
    except KeyboardInterrupt:
        print("Stopped. The same command resumes.")
        return usage.INTERRUPTED
    with usage.as_usage_errors((OSError,)):
        written = write_report(options.out)
    for line in written:
        print(line)
    return 1 if failures else 0


def _grid(options: argparse.Namespace) -> Any:
    from noisyfit.benchmark.cells import Settings, source_of
    from noisyfit.benchmark.contenders import method_names
    from noisyfit.benchmark.grid import Grid
    from noisyfit.benchmark.sources import data_names
    from noisyfit.embedding.backbones import find_backbone
    from noisyfit.nn.backbones import BACKBONES, KNOWN
    from noisyfit.utils.synonyms import did_you_mean

    settings = Settings(
        rows=options.rows,
        test_rows=options.test_rows,
        epochs=options.epochs,
        holdout=options.holdout,
        module=options.module,
        device=options.device,
        label=options.label,
        trusted=options.trusted,
        features=options.features,
    )
    methods = method_names(options.methods)
    if options.module not in (None, *BACKBONES):
        raise ValueError(
            f"--module must be {KNOWN}. Got {options.module!r}."
            + did_you_mean(options.module, BACKBONES)
        )
    if options.features is not None:
        with usage.as_usage_errors((ValueError, OSError, ImportError)):
            find_backbone(options.features, "DEFAULT")
    data = data_names(options.data)
    for name in data:
        source, _ = source_of(name, options.label)
        if source.X_test is None and not options.holdout:
            raise ValueError(
                f"{name} has no test rows: --holdout must be greater than 0. Got 0. Leave it out."
            )
        if source.y_clean is None and options.trusted:
            raise ValueError(
                f"--trusted needs data whose true labels are known. Got {name}. Leave it out."
            )
    grid = Grid(
        methods, data, options.noise, options.rates, options.seeds, settings, options.labels
    )
    grid.check()
    return grid
