"""A task that may kill its worker; imports nothing that takes long, as each new worker does."""

import os
import signal
from pathlib import Path


def square(folder: Path, number: int, deaths: int) -> int:
    """Die as often as is asked for, and leave a note of each call."""
    with open(folder / str(number), "a") as notes:
        notes.write("called\n")
    if calls(folder, number) <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return number**2


def calls(folder: Path, number: int) -> int:
    return len((folder / str(number)).read_text().splitlines())
