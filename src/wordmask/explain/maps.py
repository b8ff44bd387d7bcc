"""What both explanations do with the tensors of a model."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from wordmask import background
from wordmask.image import Frame
from wordmask.segmentation import Segmentation
from wordmask.words import WordClass
from wordmask.writing import JsonObject


def as_array(tensor: Tensor) -> np.ndarray:
    """A tensor in memory, of numbers that numpy has."""
    return (tensor.float() if tensor.is_floating_point() else tensor).cpu().numpy()


def on_picture(maps: np.ndarray, frame: Frame, size: tuple[int, int] | None = None) -> np.ndarray:
    """Bring maps on a model's grid, (N, h, w), to the picture as a result is brought there, (N, H, W): without padding,
    stretched back.

    Args:
        size: (height, width) in which the picture is shown; its own if None.
    """
    shown = replace(frame, original=size or frame.original)
    return torch.cat(list(shown.restore_strips(torch.from_numpy(maps))), dim=1).numpy()


def competing(result: Segmentation) -> tuple[WordClass, ...]:
    """All classes that the model saw: those of the words, then those of the background, if it was asked for."""
    return background.competing(result.vocabulary, result.settings.background)


def about(result: Segmentation) -> JsonObject:
    """What a description of an explanation begins with."""
    settings = result.settings.to_dict()
    return {"picture": result.source, "model": result.model, "task": result.task, "settings": settings}


def rounded(values: np.ndarray) -> list[float]:
    """Numbers as json should hold them: six digits that count."""
    return [float(f"{value:.6g}") for value in values.tolist()]
