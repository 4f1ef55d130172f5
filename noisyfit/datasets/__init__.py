"""Data sets with wrong labels, read from local files.

``load_*`` functions read from a folder and never use the internet; ``fetch_*`` functions do, if
asked with ``download=True``. Loaders are imported on first use.
"""

from importlib import import_module
from typing import Any

_HOME = {
    "load_adult": "adult",
    "load_animal10n": "animal10n",
    "load_cifar10n": "cifar10n",
    "load_clothing1m": "clothing1m",
    "load_fashion_mnist": "fashion_mnist",
    "load_food101n": "food101n",
    "load_label_issues": "label_issues",
    "load_music_genre": "music_genre",
    "load_ood": "ood",
    "load_red_mini_imagenet": "red_mini_imagenet",
    "load_sentiment_votes": "sentiment_votes",
    "load_table": "tables",
    "load_tiny_imagenet": "tiny_imagenet",
    "load_weak_text": "weak_text",
    "load_webvision": "webvision",
    "fetch_cifar10": "cifar",
    "fetch_cifar100": "cifar",
    "ImageFiles": "images",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
