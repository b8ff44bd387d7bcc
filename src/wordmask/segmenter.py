"""A model with the words it was asked for: pictures in, segmentations out."""

from collections.abc import Iterable
from contextlib import nullcontext
from numbers import Integral, Real
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from torch import nn

from wordmask.image import Picture, prepare, read_picture
from wordmask.models.load import load_model
from wordmask.postprocess import read_semantic
from wordmask.segmentation import Segmentation, find_regions, label_type, unlabelled_value
from wordmask.text import Synonyms, TextCache, Words, encode_vocabulary
from wordmask.vocabulary import Vocabulary, WordClass, same_phrase
from wordmask.weights import text_tower_fingerprint
from wordmask.writing import at_home, cache_folder

Precision = Literal["auto", "float32", "bfloat16", "float16"]
DISTRACTORS = "eov-seg/coco-panoptic-133"  # everyday things and stuff that compete with the user's words under background="other"


def load(
    name: str | Path = "err-seg-base", *, device: str = "auto", precision: Precision = "auto", cache: Path | Literal["auto"] | None = "auto"
) -> "Segmenter":
    """Load a model, ready to segment.

    Args:
        name: A preset (`err-seg-base`, `err-seg-large`), a checkpoint file (ours or the reference's), or a hub id `owner/name`.
        device: `auto` takes CUDA, then Apple's MPS, then the CPU; or a torch device such as `cuda:1`.
        precision: Of the image side: `float32`, `bfloat16`, `float16`; `auto` is float32.
        cache: Folder for text embeddings; `auto` is the user's cache folder, None keeps them in memory only.

    Raises:
        ValueError: No such model, device or precision; weights that can't be fetched or don't fit.
    """
    chosen_device, chosen_precision = choose_device(device), choose_precision(precision)
    loaded = load_model(name)
    model = loaded.model.to(chosen_device)
    folder = cache_folder() if cache == "auto" else cache and at_home(cache)
    return Segmenter(model, name=loaded.name, precision=chosen_precision, text_tower=loaded.text_tower, cache=folder)


class Segmenter:
    """Segments pictures by words.

    Args:
        model: On the device it shall run on.
        name: For the results.
        precision: Of the image side; words are always encoded in float32.
        text_tower: Fingerprint of the text tower, computed if None.
        cache: Folder for text embeddings, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str = "",
        precision: Precision = "float32",
        text_tower: str | None = None,
        cache: Path | None = None,
    ):
        self.model = model.eval()
        self.name = name
        self.device = next(model.parameters()).device
        self.precision = choose_precision(precision)
        fingerprint = text_tower or text_tower_fingerprint(model.state_dict())
        self.text = TextCache(fingerprint, model.templates, cache)
        self._last_words: tuple[object, Words] | None = None

    def __call__(
        self,
        pictures: Picture | list[Picture],
        words: Vocabulary | str | Path | Iterable[str],
        *,
        keep: int | None = None,
        threshold: float = 0.0,
        background: Literal["other"] | None = None,
        synonyms: Synonyms = "first",
        per_pixel: bool = False,
    ) -> Segmentation | list[Segmentation]:
        """Label every pixel of a picture, or of each picture of a list, with the word that fits best.

        Args:
            pictures: See `wordmask.image.read_picture`.
            words: See `Vocabulary.of`.
            keep: How many classes the model refines; its own choice by default.
            threshold: Pixels whose best probability is below stay unlabelled; in [0, 1].
            background: `"other"` lets everyday things and stuff compete with the words; what they win stays unlabelled.
            synonyms: `first` encodes a class by its first name, `mean` by the mean over all its names.
            per_pixel: Also return every pixel's confidence, runner-up and the runner-up's confidence.

        Raises:
            ValueError: A picture that can't be read, words or settings that make no sense.
        """
        vocabulary = Vocabulary.of(words, self.model.family)
        settings = check_settings(keep=keep, threshold=threshold, background=background, synonyms=synonyms)
        encoded = self.encode_words(vocabulary, synonyms, background)
        competing = len(encoded.owner)
        keep = min(settings["keep"] or self.model.default_keep(competing), competing)
        settings |= {"keep": keep, "precision": self.precision}
        many = isinstance(pictures, list | tuple)
        results = [
            self._segment(picture, vocabulary, words=encoded, settings=settings, per_pixel=per_pixel)
            for picture in (pictures if many else [pictures])
        ]
        return results if many else results[0]

    @torch.inference_mode()
    def encode_words(self, vocabulary: Vocabulary, synonyms: Synonyms = "first", background: Literal["other"] | None = None) -> Words:
        """Encode words on the model's device, those of the background after them; the last ones asked for are at hand at once."""
        key = (vocabulary, synonyms, background)
        if self._last_words is None or self._last_words[0] != key:
            competing = Vocabulary((*vocabulary, *distractors(vocabulary))) if background else vocabulary
            words = encode_vocabulary(competing, synonyms, lambda phrases: self.text.encode(phrases, self.model.encode_text))
            self._last_words = (key, Words(*(tensor.to(self.device) for tensor in words)))
        return self._last_words[1]

    @torch.inference_mode()
    def _segment(self, picture: Picture, vocabulary: Vocabulary, *, words: Words, settings: dict, per_pixel: bool) -> Segmentation:
        rgb = read_picture(picture)
        pixels, frame = prepare(rgb, self.model.image_input)
        with self._autocast():
            raw = self.model(pixels[None].to(self.device), words, keep=settings["keep"])
        reading = read_semantic(raw.logits[0], raw.kept[0], frame)
        best, confidence, second, second_confidence = (tensor.cpu().numpy() for tensor in reading)
        labels, runner_up = as_labels(best, len(vocabulary)), as_labels(second, len(vocabulary))
        labels[confidence < settings["threshold"]] = unlabelled_value(len(vocabulary))
        return Segmentation(
            labels=labels,
            vocabulary=vocabulary,
            regions=find_regions(labels, vocabulary, confidence=confidence, runner_up=runner_up),
            picture=rgb,
            model=self.name,
            settings=dict(settings),
            source=printable(picture) if isinstance(picture, str | Path) else None,
            confidence=confidence if per_pixel else None,
            runner_up=runner_up if per_pixel else None,
            runner_up_confidence=second_confidence if per_pixel else None,
        )

    def _autocast(self):
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, getattr(torch, self.precision))


def as_labels(classes: np.ndarray, words: int) -> np.ndarray:
    """Write class indices as labels: those beyond the user's words (distractors), and -1, become unlabelled."""
    return np.where((classes >= 0) & (classes < words), classes, unlabelled_value(words)).astype(label_type(words))


def distractors(vocabulary: Vocabulary) -> tuple[WordClass, ...]:
    """List everyday things and stuff but those that the words name: "red car" rules out "car", and "wall" rules out "brick wall"."""
    asked = [_stems(name) for entry in vocabulary for name in entry.names]

    def is_asked(entry: WordClass) -> bool:
        return any(stems <= other or other <= stems for stems in map(_stems, entry.names) for other in asked)

    return tuple(entry for entry in Vocabulary.builtin(DISTRACTORS) if not is_asked(entry))


def _stems(phrase: str) -> set[str]:
    return {word.removesuffix("s") for word in same_phrase(phrase).replace("-", " ").split()}


def printable(path: str | Path) -> str:
    """A path as text that can be written anywhere: bytes that are no UTF-8 become escapes."""
    return str(path).encode("utf-8", "backslashreplace").decode("utf-8")


def check_settings(*, keep: int | None, threshold: float, background: str | None, synonyms: str) -> dict[str, object]:
    """Return the settings in plain values, for the record.

    Raises:
        ValueError: One is out of range.
    """
    if keep is not None and not (isinstance(keep, Integral) and keep >= 1):
        raise ValueError(f"keep came as {keep!r}; expected a number of classes, at least 1, or nothing for the model's own choice.")
    if not (isinstance(threshold, Real) and 0 <= threshold <= 1):
        raise ValueError(f"threshold came as {threshold!r}; expected a probability in [0, 1].")
    if background not in (None, "other"):
        raise ValueError(f"background came as {background!r}; expected 'other', or nothing.")
    if synonyms not in get_args(Synonyms):
        raise ValueError(f"synonyms came as {synonyms!r}; expected 'first' or 'mean'.")
    keep = None if keep is None else int(keep)
    return {"keep": keep, "threshold": float(threshold), "background": background, "synonyms": synonyms}


def choose_device(device: str) -> torch.device:
    """Turn a device's name into a device that is there.

    Raises:
        ValueError: It is unknown, or this machine lacks it.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.ones(1, device=chosen).item()
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = str(error).splitlines()[0].split(". ")[0].removesuffix(".")[:160]
        raise ValueError(f"The device {device!r} cannot be used here: {reason}. Choose auto, cpu, cuda or mps.") from None
    return chosen


def choose_precision(precision: str) -> str:
    """Resolve `auto`, which is float32: half precisions are not yet shown to give the same labels.

    Raises:
        ValueError: An unknown precision.
    """
    if precision not in get_args(Precision):
        raise ValueError(f"precision came as {precision!r}; expected one of {', '.join(get_args(Precision))}.")
    return "float32" if precision == "auto" else precision
