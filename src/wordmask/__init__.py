"""Words in, masks out: open-vocabulary segmentation with ERR-Seg and EOV-Seg."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # type checkers see plain imports
    from wordmask.image import read_picture
    from wordmask.pixels import PictureNote
    from wordmask.segmentation import Segmentation
    from wordmask.segmenter import Segmenter, load
    from wordmask.settings import Settings
    from wordmask.vocabulary import Vocabulary

__all__ = ["PictureNote", "Segmentation", "Segmenter", "Settings", "Vocabulary", "load", "read_picture"]
__version__ = "0.1.0"

_HOMES = {
    "load": "segmenter",
    "Segmenter": "segmenter",
    "Segmentation": "segmentation",
    "Settings": "settings",
    "Vocabulary": "vocabulary",
    "read_picture": "image",
    "PictureNote": "pixels",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `wordmask --help` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wordmask' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"wordmask.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
