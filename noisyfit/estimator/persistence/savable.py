"""Save and load: one file for a fitted model."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any, BinaryIO, ClassVar, Self

from noisyfit.estimator.persistence import file as model_file
from noisyfit.estimator.persistence.models import Model, pass_to_load
from noisyfit.estimator.persistence.packer import ModelPacker
from noisyfit.estimator.persistence.unpacker import ModelUnpacker
from noisyfit.exceptions import warn
from noisyfit.utils.torch_state import torch_defaults


class Savable(Model):
    """A model that can be saved to a file and loaded again."""

    _module_parameter: ClassVar[str] = "module"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fitted model, with everything it needs to predict, to one file.

        The file holds arrays, numbers and weights, but no code: see `load`. A warning names the
        parameters that it cannot hold, such as callbacks and functions.

        Parameters
        ----------
        path : path
            An existing file is replaced, also through a symbolic link; nothing else ever is.
        """
        from sklearn.utils.validation import check_is_fitted

        check_is_fitted(self)
        save(self, path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        module: Any = None,
        device: Any = "auto",
        **params: Any,
    ) -> Self:
        """Read what `save` wrote.

        Parameters
        ----------
        path : path
        module : module class, factory or instance
            Needed if the model was fitted with a network of your own: code is never stored. In
            `EchoAlignClassifier`, the network of its classifier.
        device : str or torch.device, default="auto"
        **params
            Parameters that replace those in the file. Use them for what `save` left out, such as
            ``callbacks``, or ``selector__modifier`` for a model within a model.
        """
        given = params if module is None else params | {cls._module_parameter: module}
        return load(cls, path, device=device, params=given)


def save(estimator: Savable, path: str | os.PathLike[str]) -> None:
    """Write ``estimator`` to ``path``, or to the file that a link points to, all or nothing.

    Raises
    ------
    FileNotFoundError
        If there is no folder to write into.
    ValueError
        If ``path`` exists and is not a file.
    NoisyFitError
        If a fitted attribute has a value that a file cannot hold.
    """
    target = model_file.target_of(path)
    packer = ModelPacker()
    members = packer.members(estimator)
    for message in packer.losses():
        warn(message)
    model_file.write(members, target)


def load(cls: Any, path: str | os.PathLike[str], *, device: Any, params: Mapping[str, Any]) -> Any:
    """Read an estimator of class ``cls``, or of a subclass in this package."""
    with open(path, "rb") as file:
        unpacker, estimator = _loaded(cls, file, os.fsdecode(path), device, params)
    if unpacker.missing:
        warn(
            f"The model was fitted with {', '.join(unpacker.missing)}, which the file does not "
            f"hold: the defaults stand in their place. {pass_to_load(unpacker.missing)}"
        )
    return estimator


def dumps(estimator: Savable) -> bytes:
    """Return the file as bytes."""
    return model_file.as_bytes(ModelPacker().members(estimator))


def loads(template: Any, content: bytes) -> Any:
    """Undo `dumps` for an estimator with the parameters of ``template``."""
    params = template.get_params(deep=False)
    found = _loaded(type(template), io.BytesIO(content), "memory", "auto", params)[1]
    return found.set_params(**params)


@torch_defaults()
def _loaded(
    cls: Any, file: BinaryIO, path: str, device: Any, params: Mapping[str, Any]
) -> tuple[ModelUnpacker, Any]:
    description, arrays, weights = model_file.read(file, path)
    unpacker = ModelUnpacker(path, arrays, weights.pop("tensors", {}), device)
    return unpacker, unpacker.model(description, params, cls=cls, networks=weights)
