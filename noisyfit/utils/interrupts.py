"""Ctrl+C, told from the ``KeyboardInterrupt`` by which callbacks of skorch stop a training."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def noticed_interrupts() -> Iterator[list[int]]:
    """Note each Ctrl+C that comes inside, also if somebody passes over its exception.

    Yields
    ------
    list of int
        The signals, as they come. Only the main thread gets any.
    """
    noticed: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        yield noticed
        return

    def notice(number: int, frame: FrameType | None) -> None:
        noticed.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, notice)
    try:
        yield noticed
    finally:
        signal.signal(signal.SIGINT, before)
