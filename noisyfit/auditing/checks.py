"""What must hold before an audit begins."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile

from noisyfit.auditing.request import AUTO, Request
from noisyfit.auditing.source import fingerprint
from noisyfit.benchmark.contenders import package_methods
from noisyfit.utils.files import explained, make_folder
from noisyfit.utils.synonyms import did_you_mean

FOLDER = "folder of the audit"  # in errors


def check_data(request: Request) -> None:
    """Refuse data that are not there, and options that they do not take."""
    data = request.data
    if not data.exists():
        beside = [file.name for file in data.parent.iterdir()] if data.parent.is_dir() else []
        raise FileNotFoundError(
            f"The data must exist. Got {str(data)!r}.{did_you_mean(data.name, beside)} Check the "
            f"path; it is relative to {str(Path.cwd())!r}."
        )
    if Path(os.path.realpath(data)) in Path(os.path.realpath(request.out)).parents:
        raise ValueError(
            f"The folder of the audit must not lie in the data. Got {str(request.out)!r} in "
            f"{str(data)!r}. Name another folder."
        )
    of_tables = {"--label": request.label, "--images": request.images, "--text": request.text}
    given = [option for option, value in of_tables.items() if value]
    if given and (data.is_dir() or data.suffix == ".npz"):
        raise ValueError(
            f"Only tables take {', '.join(given)}. Got {'a folder' if data.is_dir() else 'arrays'},"
            f" {str(data)!r}. Leave the option out, or pass a table."
        )
    methods = [AUTO, *package_methods()]
    if request.method not in methods:
        raise ValueError(
            f"--method must be one of {', '.join(methods)}. Got {request.method!r}."
            f"{did_you_mean(request.method, methods)}"
        )


def check_folder(request: Request) -> None:
    """Make the folder ready for writing; refuse one whose files would be overwritten."""
    out = request.out
    make_folder(out, FOLDER)
    try:
        file = out / "audit.json"
        earlier = file.read_text("utf-8", "replace") if file.exists() else None
        TemporaryFile(dir=out).close()
    except OSError as error:
        raise explained(error, out, FOLDER) from error
    if earlier is not None:
        facts = {"sha256": fingerprint(request.data), "label": request.label or ""}
        if not _states(earlier, facts):
            raise ValueError(
                "The folder must be new, or that of an audit of the same labels. Got "
                f"{out}, which holds another audit. Name another folder."
            )
    elif request.again:
        raise ValueError(
            f"--again goes on with an audit. Got {out}, which holds none. Leave --again out."
        )
    elif any(out.iterdir()) and not (out / "cache").is_dir():
        raise ValueError(
            f"The folder must be new or empty. Got {out}, which holds other files. Name another."
        )


def _states(text: str, facts: Mapping[str, str]) -> bool:
    """Whether a text is a JSON object that has these facts among others."""
    try:
        found = json.loads(text)
    except ValueError:
        return False
    return isinstance(found, dict) and facts.items() <= found.items()
