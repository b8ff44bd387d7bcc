"""EOV-Seg: where it looked, what its queries cover and are called by whom, and how their embeddings were mixed."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wordmask.explain.maps import as_array, competing, rounded
from wordmask.image import Frame, Picture
from wordmask.models.eov_seg import EovSeg, TwoWayExperts, VocabularyAwareSelection
from wordmask.postprocess import read_panoptic
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Segmenter
from wordmask.watching import Call, recorded

FATES = {  # of a query in the panoptic reading
    "segment": "it is a segment, or a part of one",
    "other": "it is a segment of the background's classes",
    "covered": "others won too many of its pixels, or it has none",
    "unsure": "its class probability is not above the threshold",
    "void": "its most probable class is none of the words",
}
# parts of TDEE: a gate's logits, what it is for
GATED = ("semantic_gate_norm", "semantic_norm", "spatial_gate_norm", "spatial_norm")
NAMED = 3  # the best classes of a query, in the opinion of each: so many are told


@dataclass(frozen=True, eq=False)
class Selection:
    """Vocabulary-aware selection: the map of features is multiplied by clarity · scale + offset. It has one head.

    Args:
        clarity: (h4, w4) float32 in (0, 1], the largest probability that a softmax over the names and void gives at a
            pixel.
        scale: Learned.
        offset: Learned.
        phrases: How many names of classes the softmax goes over, beside void.
    """

    clarity: np.ndarray
    scale: float
    offset: float
    phrases: int

    @property
    def weights(self) -> np.ndarray:
        """(h4, w4), by which the map is multiplied."""
        return self.clarity * np.float32(self.scale) + np.float32(self.offset)


@dataclass(frozen=True, eq=False)
class Gates:
    """TDEE's gates in one layer of the decoder: the embeddings of a query's region are multiplied by them and added.

    Args:
        layer: Counts from 1.
        semantic: (Q, C) float32 in (0, 1), for what the CNN knows of a query's region.
        spatial: (Q, C), for what the spatial extractor knows.
        semantic_strength: (Q,), mean size of gate × embedding over the channels: what is let through.
        spatial_strength: (Q,), likewise.
    """

    layer: int
    semantic: np.ndarray
    spatial: np.ndarray
    semantic_strength: np.ndarray
    spatial_strength: np.ndarray


@dataclass(frozen=True, eq=False)
class EovSegExplanation:
    """What EOV-Seg went by in a picture: Q queries, T classes.

    Maps lie on the grid of the model's input; `wordmask.explain.maps.on_picture(maps, frame)` brings them to the
    picture.

    Args:
        result: The panoptic segmentation, as the segmenter gives it.
        frame: How maps get back to the picture.
        names: T, of the words, and of the background's classes after them, if they competed.
        mask_logits: (Q, h4, w4) float32; the sigmoid is the probability. A mask is where it is above 0.5 on the
            picture.
        own: (Q, T + 1) float32, class probabilities of the decoder, void last.
        clip: (Q, T), those that CLIP itself gives to the region.
        final: (Q, T + 1), the ensemble of both, by which the result is read.
        seen: (T,) bool, whether training saw the class: CLIP counts less there.
        regions: (Q,), the id of the segment that a query belongs to, 0 if none.
        fates: Q keys of `FATES`.
        selection: None if the model has none of this kind.
        gates: Of the layers whose class vectors are there: `wordmask.load` keeps the last, which alone counts for a
            result.
    """

    result: Segmentation
    frame: Frame
    names: list[str]
    mask_logits: np.ndarray
    own: np.ndarray
    clip: np.ndarray
    final: np.ndarray
    seen: np.ndarray
    regions: np.ndarray
    fates: list[str]
    selection: Selection | None
    gates: list[Gates]

    @cached_property
    def order(self) -> np.ndarray:
        """(Q,), queries: those of segments first, the largest segment first; then by the probability of their best
        word."""
        areas = {0: 0} | {region.id: region.area for region in self.result.regions}
        area = np.array([areas[region] for region in self.regions.tolist()])
        return np.lexsort((-self.final[:, :-1].max(axis=1), self.regions, -area))

    def opinions(self, query: int) -> dict[str, np.ndarray]:
        """Three times (T,): the probabilities of the words alone, void left out, as the ensemble mixes them.

        The logarithm of `ensemble` is a mean of those of `own` and `clip`, weighted by `seen`, but for a constant.
        """

        def among_words(probs: np.ndarray) -> np.ndarray:
            return probs[:-1] / max(probs[:-1].sum(), np.finfo(np.float32).tiny)

        return {
            "own": among_words(self.own[query]),
            "clip": self.clip[query],
            "ensemble": among_words(self.final[query]),
        }

    def named(self, query: int) -> list[int]:
        """The classes worth telling of a query: the ensemble's best, then what else the decoder or CLIP puts first."""
        opinions = self.opinions(query)
        best = np.argsort(-opinions["ensemble"], kind="stable")[:NAMED].tolist()
        return list(dict.fromkeys([*best, int(opinions["own"].argmax()), int(opinions["clip"].argmax())]))

    def to_dict(self) -> dict[str, object]:
        """The numbers in plain values, of all queries in their order; without the maps."""
        result = self.result
        about = {"picture": result.source, "model": result.model, "task": result.task, "settings": result.settings}
        selection = self.selection and {
            **{name: getattr(self.selection, name) for name in ("scale", "offset", "phrases")},
            **{name: float(getattr(self.selection.weights, name)()) for name in ("min", "mean", "max")},
        }
        return about | {"selection": selection, "queries": [self._query(query) for query in self.order.tolist()]}

    def _query(self, query: int) -> dict[str, object]:
        opinions, named = self.opinions(query), self.named(query)
        columns = {name: rounded(probs[named]) for name, probs in opinions.items()}
        classes = [
            {"class": label, "name": self.names[label], "seen": bool(self.seen[label])}
            | {name: columns[name][i] for name in columns}
            for i, label in enumerate(named)
        ]
        score = next((region.score for region in self.result.regions if region.id == self.regions[query]), None)
        gates = [
            {"layer": gates.layer}
            | {way: float(getattr(gates, way)[query].mean()) for way in ("semantic", "spatial")}
            | {way: float(getattr(gates, way)[query]) for way in ("semantic_strength", "spatial_strength")}
            for gates in self.gates
        ]
        return {
            **{"query": query, "fate": self.fates[query], "region": int(self.regions[query]) or None, "score": score},
            **{"void": float(self.final[query, -1]), "classes": classes, "gates": gates},
        }


def explain_eov_seg(
    segmenter: Segmenter, picture: Picture, words: object, settings: dict[str, object]
) -> EovSegExplanation:
    """See `wordmask.explain.answer.explain`."""
    model = segmenter.model
    with recorded(watched_methods(segmenter)) as calls:
        result = segmenter(picture, words, **settings)
        with torch.inference_mode(), segmenter.autocast():
            classify_earlier(model, calls)
    (read,), (asked,) = calls["read"], calls["clip"]
    raw, number, frame = read.arguments
    classes, masks = raw.class_logits[number], raw.mask_logits[number]
    limits = {name: result.settings[name] for name in ("threshold", "overlap")}
    segments = read_panoptic(classes, masks, things=read.settings["things"], frame=frame, **limits)
    final, words_asked = classes.float().softmax(dim=-1), len(result.vocabulary)
    regions, fates = tell_fates(
        final, segments.queries, segments.classes, words=words_asked, threshold=result.settings["threshold"]
    )
    return EovSegExplanation(
        result=result,
        frame=frame,
        names=[entry.name for entry in competing(result)],
        mask_logits=as_array(masks),
        own=as_array(raw.layer_class_logits[-1][number].float().softmax(dim=-1)),
        clip=as_array(asked.result[0][number, :, :-1].float().softmax(dim=-1)),
        final=as_array(final),
        seen=as_array(asked.arguments[-1].seen),
        regions=regions,
        fates=fates,
        selection=read_selection(model, calls, number),
        gates=read_gates(model, calls, number),
    )


def watched_methods(segmenter: Segmenter) -> dict[str, tuple[object, str]]:
    """What is recorded while the model runs."""
    model: EovSeg = segmenter.model
    methods = {"read": (segmenter, "_read"), "clip": (model, "ask_clip")}
    if isinstance(model.selection, VocabularyAwareSelection):
        methods["clarity"] = (model.selection, "clarity")
    for number, layer in enumerate(model.layers, 1):
        methods[f"refine {number}"] = (layer, "refine")
        methods[f"classify {number}"] = (layer, "classify")
        if isinstance(layer.fusion, TwoWayExperts):
            methods |= {f"{part} {number}": (getattr(layer.fusion, part), "forward") for part in GATED}
    return methods


def classify_earlier(model: EovSeg, calls: dict[str, list[Call]]) -> None:
    """Make the class vectors of the layers before the last, where these have what it takes: a result doesn't need them,
    their gates do."""
    _, _, features, spatial = calls[f"classify {len(model.layers)}"][0].arguments
    for number, layer in enumerate(model.layers[:-1], 1):
        if isinstance(layer.fusion, TwoWayExperts):
            kernels, masks = calls[f"refine {number}"][0].result
            layer.classify(kernels, masks, features, spatial)


def read_selection(model: EovSeg, calls: dict[str, list[Call]], number: int) -> Selection | None:
    """Take what vocabulary-aware selection made of one picture of a batch."""
    if "clarity" not in calls:
        return None
    (clarity,) = calls["clarity"]
    scale, offset = (float(part.detach()) for part in (model.selection.scale, model.selection.offset))
    _, phrases, _ = clarity.arguments
    return Selection(as_array(clarity.result[number]), scale, offset, phrases=len(phrases))


def read_gates(model: EovSeg, calls: dict[str, list[Call]], number: int) -> list[Gates]:
    """Take the gates of one picture of a batch, from every layer that has some."""

    def gates(layer: int) -> Gates:
        semantic, semantic_value, spatial, spatial_value = (
            calls[f"{part} {layer}"][0].result[number].float() for part in GATED
        )
        semantic, spatial = semantic.sigmoid(), spatial.sigmoid()
        strengths = (
            (gate * value).abs().mean(dim=-1) for gate, value in ((semantic, semantic_value), (spatial, spatial_value))
        )
        return Gates(layer, *map(as_array, (semantic, spatial, *strengths)))

    return [gates(layer) for layer in range(1, len(model.layers) + 1) if f"{GATED[0]} {layer}" in calls]


def tell_fates(
    final: Tensor, queries: list[list[int]], classes: list[int], *, words: int, threshold: float
) -> tuple[np.ndarray, list[str]]:
    """Tell what became of each query in the panoptic reading.

    Args:
        final: (Q, T + 1) probabilities, void last.
        queries: Of each segment.
        classes: Of each segment; those from `words` on are the background's, which no region has.

    Returns:
        (Q,) ids of regions, 0 for none; and Q keys of `FATES`.
    """
    scores, best = final.max(dim=-1)
    void = final.shape[1] - 1
    fates = [
        "void" if label == void else "covered" if score > threshold else "unsure"
        for score, label in zip(scores.tolist(), best.tolist(), strict=True)
    ]
    regions, next_id = np.zeros(len(final), int), 1
    for members, label in zip(queries, classes, strict=True):
        for query in members:
            fates[query] = "segment" if label < words else "other"
            regions[query] = next_id if label < words else 0
        next_id += label < words
    return regions, fates
