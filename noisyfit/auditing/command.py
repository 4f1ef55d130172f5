"""The commands ``noisyfit review`` and ``noisyfit apply``, with their options."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from noisyfit.benchmark import usage

say_at_once = partial(print, flush=True)  # seen even if the process is killed right afterwards


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
