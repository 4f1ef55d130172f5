"""The command ``noisyfit``."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence

from noisyfit import __version__
from noisyfit.auditing import command as auditing
from noisyfit.benchmark import command, usage


@usage.ends_with_its_reader
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line ``argv`` and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be valid text
    options = _parser().parse_args(argv)
    try:
        status: int = options.run(options)
    except usage.UsageError as error:
        options.parser.error(str(error))
    except KeyboardInterrupt:
        print(f"Stopped.{getattr(options, 'when_stopped', '')}", file=sys.stderr)
        return usage.INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="noisyfit", description="Learn the right classifier from wrong labels."
    )
    parser.add_argument("--version", action="version", version=f"noisyfit {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="command")
    auditing.add_audit(commands)
    auditing.add_review(commands)
    auditing.add_apply(commands)
    command.add_demo(commands)
    command.add_benchmark(commands)
    return parser
