"""A segmenter, a picture and words → what the model went by."""

from dataclasses import replace
from typing import Unpack

from wordmask.explain.class_maps import ClassMapExplanation, explain_class_maps
from wordmask.explain.query_masks import QueryExplanation, explain_query_masks
from wordmask.image import Picture
from wordmask.raw import ClassMaps
from wordmask.segmenter import NO_SETTINGS, AnyWords, Segmenter
from wordmask.settings import Settings, SettingsByName
from wordmask.surroundings import precision_kept

Explanation = ClassMapExplanation | QueryExplanation


@precision_kept()
def explain(
    segmenter: Segmenter,
    picture: Picture,
    words: AnyWords,
    settings: Settings = NO_SETTINGS,
    **changed: Unpack[SettingsByName],
) -> Explanation:
    """Segment a picture, and keep what the model went by.

    The segmenter does what it always does; then its model goes through some of its stages once more. If a model emits
    masks of queries, the panoptic reading is explained.

    Args:
        picture: See `wordmask.image.read_picture`.
        words: See `Vocabulary.of`.
        settings: As the segmenter takes them: keep (ERR-Seg), threshold, overlap (EOV-Seg), background, synonyms.
        changed: Likewise.

    Raises:
        ValueError: A picture that can't be read, words or settings that make no sense, or a compiled model.
    """
    settings = replace(settings, **changed)
    check_explainable(segmenter, settings)
    look = segmenter.look(picture, words, settings)
    if isinstance(look.raw, ClassMaps):
        return explain_class_maps(segmenter, look, look.raw)
    return explain_query_masks(segmenter, look, look.raw)


def check_explainable(segmenter: Segmenter, settings: Settings) -> None:
    """Raise a ValueError for what can be asked of a segmenter, but not explained."""
    if segmenter.run is not segmenter.model:
        raise ValueError("The model came compiled: its parts can't be told apart. Load it without compile.")
    offered = segmenter.model.tasks[0]
    if settings.task not in (None, offered):
        raise ValueError(
            f"task came as {settings.task!r}; of {segmenter.model.family} what is explained is {offered}. Leave it out."
        )
    if settings.tile is not None:
        raise ValueError(
            f"tile came as {settings.tile!r}; what is explained is one look at the whole picture. Leave it out."
        )
