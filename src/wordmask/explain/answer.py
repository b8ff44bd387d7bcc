"""A segmenter, a picture and words → what the model went by."""

from collections.abc import Iterable
from pathlib import Path

from wordmask.explain.eov_seg import EovSegExplanation, explain_eov_seg
from wordmask.explain.err_seg import ErrSegExplanation, explain_err_seg
from wordmask.image import Picture
from wordmask.segmenter import Segmenter
from wordmask.vocabulary import Vocabulary

Explanation = ErrSegExplanation | EovSegExplanation


def explain(
    segmenter: Segmenter, picture: Picture, words: Vocabulary | str | Path | Iterable[str], **settings
) -> Explanation:
    """Segment a picture, and keep what the model went by.

    The segmenter does what it always does; its model's methods are watched meanwhile, so that no other thread may use
    it. Of EOV-Seg it is the panoptic reading that is explained.

    Args:
        picture: See `wordmask.image.read_picture`.
        words: See `Vocabulary.of`.
        settings: As the segmenter takes them: keep (ERR-Seg), threshold, overlap (EOV-Seg), background, synonyms.

    Raises:
        ValueError: A picture that can't be read, words or settings that make no sense, or a compiled model.
    """
    check_explainable(segmenter, settings)
    family = {"err-seg": explain_err_seg, "eov-seg": explain_eov_seg}
    return family[segmenter.model.family](segmenter, picture, words, settings)


def check_explainable(segmenter: Segmenter, settings: dict[str, object]) -> None:
    """Raise a ValueError for what can be asked of a segmenter, but not explained."""
    if segmenter.run is not segmenter.model:
        raise ValueError("The model came compiled: its parts can't be told apart. Load it without compile.")
    task, offered = settings.get("task"), segmenter.model.tasks[0]
    if task not in (None, offered):
        raise ValueError(
            f"task came as {task!r}; of {segmenter.model.family} what is explained is {offered}. Leave it out."
        )
    if settings.get("tile") is not None:
        raise ValueError(
            f"tile came as {settings['tile']!r}; what is explained is one look at the whole picture. Leave it out."
        )
