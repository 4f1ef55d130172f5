"""The commands ``noisyfit audit``, ``review`` and ``apply``, with their options."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from noisyfit.benchmark import usage
from noisyfit.benchmark.usage import say_at_once


def add_audit(commands: Any) -> None:
    """Add ``audit`` to the commands of ``noisyfit``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "audit",
        help="find the wrong labels in a file, and write a page to look at",
        description="Read a table (CSV, TSV, Parquet, Feather, JSON lines), a folder of images "
        "(one folder a class), a table of paths or texts, or arrays X and y (.npz). Write "
        "report.html, issues.csv, labels.csv and audit.json to a folder. A command that was "
        "stopped goes on when called again. Exit status: 0, or 2 if something cannot be read. "
        "Then: noisyfit review, noisyfit apply.",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help="file or folder to audit")
    parser.add_argument("--label", metavar="COLUMN", help="column of the labels")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="for the findings"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--images", metavar="COLUMN", help="column of the paths of images")
    what.add_argument("--text", metavar="COLUMN", help="column of texts")
    parser.add_argument(
        "--missing",
        nargs="+",
        default=[],
        metavar="VALUE",
        help='entries and labels that mean that there is none, such as "?"',
    )
    parser.add_argument(
        "--embeddings", type=Path, metavar="FILE", help=".npy to learn from, one row for each row"
    )
    parser.add_argument(
        "--trusted", metavar="COLUMN|FILE", help="labels that are right: a column of yes and no, "
        "or a file that names rows, one a line",
    )  # fmt: skip
    parser.add_argument(
        "--again", action="store_true", help="trust what was decided in noisyfit review since"
    )
    parser.add_argument(
        "--method", default="auto", metavar="NAME", help="what rates the labels, such as flywheel; "
        "default: auto, which is co-teaching and gradient boosting (on texts logistic regression)",
    )  # fmt: skip
    parser.add_argument("--device", type=usage.device, default="auto")
    parser.add_argument("--folds", type=usage.count, default=5, help="default: 5")
    parser.add_argument("--seed", type=usage.seed, default=0, help="default: 0")
    parser.add_argument("--jobs", type=usage.count, metavar="N", help="folds at once; default: 1")
    again = " The same command goes on."
    parser.set_defaults(run=run_audit, parser=parser, when_stopped=again)


def run_audit(options: argparse.Namespace) -> int:
    """Audit a file."""
    from noisyfit.auditing.request import Request
    from noisyfit.auditing.running import rate, read, write

    asked = {
        name: value for name, value in vars(options).items() if name in Request.__annotations__
    }
    request = Request(**asked | {"missing_values": tuple(options.missing)})
    say_at_once(f"Reading {request.data}")
    with usage.as_usage_errors((ValueError, OSError, ImportError)):
        subject = read(request)
    n_unlabelled = int(subject.y.isna().sum())
    say_at_once(
        f"{len(subject.y):,} rows, {subject.y.nunique()} classes, {n_unlabelled:,} without a label"
    )
    for column, reason in subject.left_out.items():
        say_at_once(f"Left out: {column} ({reason})")
    say_at_once(f"Rating each label by detectors that have not seen it, {request.folds} folds")
    with usage.as_usage_errors((OSError,)):
        found = rate(request, subject)
        write(request, subject, found)
    print(found)
    for caution in found.cautions_:
        print(caution)
    print(f"Open {options.out / 'report.html'}, or decide: noisyfit review {options.out}")
    return 0


def add_review(commands: Any) -> None:
    """Add ``review`` to the commands of ``noisyfit``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "review",
        help="decide about the labels that an audit found suspicious",
        description="Serve the report of an audit on this machine, for no other, and take "
        "decisions: keep, accept the suggestion, choose another class, skip, undo. Each is in "
        "FOLDER/decisions.csv before the page shows it. Ctrl+C ends the review; the same command "
        "goes on with it. Then: noisyfit apply.",
    )
    _add_folder(parser)
    parser.add_argument("--port", type=usage.port, default=0, help="default: one that is free")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    parser.set_defaults(run=run_review, parser=parser)


def add_apply(commands: Any) -> None:
    """Add ``apply`` to the commands of ``noisyfit``."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "apply",
        help="write the data with the labels that were decided",
        description="Write the audited data with other labels. The original stays as it is, and "
        "so does all in it that is not a label.",
    )
    _add_folder(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--to", type=Path, metavar="PATH", help="file to write, or folder for a folder of images"
    )
    what.add_argument(
        "--move", action="store_true", help="move the images themselves between their folders"
    )
    what.add_argument("--undo", action="store_true", help="move them back")
    parser.add_argument(
        "--only",
        choices=["decided", "confident"],
        default="decided",
        help="change labels where a person decided so (the default), or also where nobody decided "
        "and the audit is confident",
    )
    parser.add_argument("--force", action="store_true", help="replace the file of --to")
    parser.set_defaults(run=run_apply, parser=parser)


def run_review(options: argparse.Namespace) -> int:
    """Serve the page until Ctrl+C."""
    from noisyfit.auditing import review

    with usage.as_usage_errors((ValueError, OSError, ImportError)):
        try:
            review.serve(options.folder, port=options.port, opens=options.open, say=say_at_once)
        except KeyboardInterrupt:
            pass
    return 0


def run_apply(options: argparse.Namespace) -> int:
    """Write or move what was decided."""
    from noisyfit.auditing import applying

    with usage.as_usage_errors((ValueError, OSError, ImportError)):
        if options.undo:
            said = applying.undo_moves(options.folder)
        elif options.move:
            said = applying.move_images(options.folder, only=options.only)
        else:
            said = applying.write_cleaned(
                options.folder, options.to, only=options.only, force=options.force
            )
    print(said)
    return 0


def _add_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="that noisyfit audit wrote")
