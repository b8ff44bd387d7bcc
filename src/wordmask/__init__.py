"""Words in, masks out: open-vocabulary segmentation with ERR-Seg and EOV-Seg."""

__all__ = ["Segmentation", "Segmenter", "Settings", "Vocabulary", "load"]
__version__ = "0.1.0"

_HOMES = {
    "load": "segmenter",
    "Segmenter": "segmenter",
    "Segmentation": "segmentation",
    "Settings": "settings",
    "Vocabulary": "vocabulary",
}


def __getattr__(name: str):
    """Import a public name when it is first used, so that `wordmask --help` need not wait for torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'wordmask' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"wordmask.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
