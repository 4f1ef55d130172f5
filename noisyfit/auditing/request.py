"""What is asked of an audit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from joblib import Memory

AUTO = "auto"


@dataclass(frozen=True)
class Request:
    """What to audit and how, and where the findings go.

    Parameters
    ----------
    data : path
        A table, a folder of images, or an ``.npz`` file.
    out : path
    label, images, text : str or None
        Columns of labels, of paths of images, of texts.
    embeddings : path or None
        An ``.npy`` file of one row for each row of the data, to learn from instead of them.
    trusted : str or None
        A column that says which labels are right, or a file that names such rows.
    missing_values : sequence of str
        Entries, and labels, that mean that there is none.
    method : str
        The short name of a classifier of the package, or ``"auto"``.
    device : str
    seed, folds : int
    jobs : int or None
    again : bool
        Whether to trust what people have decided since the last audit.
    """

    data: Path
    out: Path
    label: str | None = None
    images: str | None = None
    text: str | None = None
    embeddings: Path | None = None
    trusted: str | None = None
    missing_values: tuple[str, ...] = ()
    method: str = AUTO
    device: str = AUTO
    seed: int = 0
    folds: int = 5
    jobs: int | None = None
    again: bool = False

    @property
    def memory(self) -> Memory:
        """Where finished work is kept, for a command that was stopped."""
        return Memory(self.out / "cache", verbose=0)
