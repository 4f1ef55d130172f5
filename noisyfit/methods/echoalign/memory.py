"""What a memory keeps of trained generators, encoders and raters, without code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from noisyfit.estimator.checkpoint import decode, encode
from noisyfit.estimator.persistence.models import learned, teach
from noisyfit.estimator.persistence.savable import Savable, dumps, loads
from noisyfit.exceptions import NoisyFitError, warn
from noisyfit.utils.files import read_sealed, set_aside


def stored(trained: Any, code: list[str]) -> bytes | None:
    """Return the result of training as bytes without code, None if that is impossible."""
    try:
        return dumps(trained) if isinstance(trained, Savable) else encode(learned(trained, code))
    except (NoisyFitError, TypeError, ValueError) as error:
        warn(
            f"memory keeps no code. Got a {type(trained).__name__} that has more than numbers: "
            f"{error} It is trained again in the next fit. Give it get_state() and "
            "set_state(state); see noisyfit.nn.generators.Trainable."
        )
        return None


def restored(model: Any, file: Path) -> Any:
    """Return the model in its trained state, None if that is unknown."""
    content = read_sealed(file)
    if content is None:
        return None
    try:
        if isinstance(model, Savable):
            return loads(model, content)
        return teach(model, decode(content))
    except Exception:  # whatever foreign bytes bring about
        set_aside(file)
        return None
