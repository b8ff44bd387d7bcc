"""Masks of queries: what they cover and who calls them what; for EOV-Seg also where it looked, and how embeddings of
regions were mixed."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from wordmask.explain.maps import about, as_array, competing, rounded
from wordmask.image import Frame
from wordmask.models.eov_seg import EovSeg, Gated, TwoWayExperts, VocabularyAwareSelection
from wordmask.postprocess import read_panoptic
from wordmask.preparing import stacked
from wordmask.raw import QueryMasks
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Look, Segmenter
from wordmask.writing import JsonObject

FATES = {  # of a query in the panoptic reading
    "segment": "it is a segment, or a part of one",
    "other": "it is a segment of the background's classes",
    "covered": "others won too many of its pixels, or it has none",
    "unsure": "its class probability is not above the threshold",
    "void": "its most probable class is none of the words",
}
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

    def to_dict(self, query: int) -> JsonObject:
        """The numbers of one query in plain values."""
        return {
            "layer": self.layer,
            "semantic": float(self.semantic[query].mean()),
            "spatial": float(self.spatial[query].mean()),
            "semantic_strength": float(self.semantic_strength[query]),
            "spatial_strength": float(self.spatial_strength[query]),
        }


@dataclass(frozen=True, eq=False)
class QueryExplanation:
    """What a model of queries (EOV-Seg) went by in a picture: Q queries, T classes.

    Maps lie on the grid of the model's input; `wordmask.explain.maps.on_picture(maps, frame)` brings them to the
    picture.

    Args:
        result: The panoptic segmentation, as the segmenter returns it.
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
        gates: In the layers whose class vectors are there: `wordmask.load` keeps the last, which alone counts for a
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

        The logarithm of `ensemble` is a mean of those of `own` and `clip`, weighted by `seen`, plus a constant.
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

    def to_dict(self) -> JsonObject:
        """The numbers in plain values, of all queries in their order; without the maps."""
        queries = [self._query(query) for query in self.order.tolist()]
        selection = None
        if self.selection is not None:
            weights = self.selection.weights
            selection = {
                "scale": self.selection.scale,
                "offset": self.selection.offset,
                "phrases": self.selection.phrases,
                "min": float(weights.min()),
                "mean": float(weights.mean()),
                "max": float(weights.max()),
            }
        return about(self.result) | {"selection": selection, "queries": queries}

    def _query(self, query: int) -> JsonObject:
        opinions, named = self.opinions(query), self.named(query)
        columns = {name: rounded(probs[named]) for name, probs in opinions.items()}
        classes = []
        for place, label in enumerate(named):
            about_class = {"class": label, "name": self.names[label], "seen": bool(self.seen[label])}
            classes.append(about_class | {name: column[place] for name, column in columns.items()})
        score = next((region.score for region in self.result.regions if region.id == self.regions[query]), None)
        return {
            "query": query,
            "fate": self.fates[query],
            "region": int(self.regions[query]) or None,
            "score": score,
            "void": float(self.final[query, -1]),
            "classes": classes,
            "gates": [gates.to_dict(query) for gates in self.gates],
        }


def explain_query_masks(segmenter: Segmenter, look: Look, raw: QueryMasks) -> QueryExplanation:
    """See `wordmask.explain.answer.explain`.

    Raises:
        ValueError: CLIP itself is not asked about the regions.
    """
    if raw.clip_class_logits is None:
        raise ValueError(f"CLIP's opinion of regions is not known for {segmenter.model.family}: it can't be explained.")
    result, chosen, classes = segmenter.read(look), look.chosen, raw.class_logits[0]
    segments = read_panoptic(
        classes,
        raw.mask_logits[0],
        things=look.encoded.things,
        frame=look.frame,
        threshold=chosen.threshold,
        overlap=chosen.overlap,
    )
    final = classes.float().softmax(dim=-1)
    regions, fates = tell_fates(
        final, segments.queries, segments.classes, words=len(result.vocabulary), threshold=chosen.threshold
    )
    selection, gates = inside_eov_seg(segmenter, look)
    return QueryExplanation(
        result=result,
        frame=look.frame,
        names=[entry.name for entry in competing(result)],
        mask_logits=as_array(raw.mask_logits[0]),
        own=as_array(raw.layer_class_logits[-1][0].float().softmax(dim=-1)),
        clip=as_array(raw.clip_class_logits[0, :, :-1].float().softmax(dim=-1)),
        final=as_array(final),
        seen=as_array(look.encoded.words.seen),
        regions=regions,
        fates=fates,
        selection=selection,
        gates=gates,
    )


def inside_eov_seg(segmenter: Segmenter, look: Look) -> tuple[Selection | None, list[Gates]]:
    """Go through EOV-Seg's stages once more, for what it alone has; other models have none of it."""
    model, words = segmenter.model, look.encoded.words
    if not isinstance(model, EovSeg):
        return None, []
    with torch.inference_mode(), segmenter.autocast():
        features = model.encode_image(stacked([look.picture.pixels], segmenter.device))
        x = model.aggregate(features)
        selection = None
        if isinstance(model.selection, VocabularyAwareSelection):
            clarity = model.selection.clarity(x, words.embeddings, model.void_vector)
            scale, offset = (float(part.detach()) for part in (model.selection.scale, model.selection.offset))
            selection = Selection(as_array(clarity[0]), scale, offset, phrases=len(words.embeddings))
        return selection, gates_of(model, model.select(x, words), features.spatial)


def gates_of(model: EovSeg, x: Tensor, spatial: Tensor | None) -> list[Gates]:
    """The gates of every layer that has some and what it takes: only the last layer's matter to a result."""
    if spatial is None or model.spatial_upscale is None:
        return []
    upscaled, found = model.spatial_upscale(spatial), []
    kernels = model.kernels.weight.expand(len(x), -1, -1)
    masks = torch.einsum("bqc,bchw->bqhw", kernels, x)
    for number, layer in enumerate(model.layers, 1):
        kernels, masks = layer.refine(kernels, x, masks)
        if isinstance(layer.fusion, TwoWayExperts):
            gated = layer.fusion.gate(layer.embed_semantic(masks, x), layer.embed_spatial(masks, upscaled))
            found.append(gates_from(number, Gated(*(part[0].float() for part in gated))))
    return found


def gates_from(layer: int, gated: Gated) -> Gates:
    """What is told of a layer's gates, of one picture."""
    strengths = (gated.semantic_gate * gated.semantic, gated.spatial_gate * gated.spatial)
    semantic_strength, spatial_strength = (as_array(strength.abs().mean(dim=-1)) for strength in strengths)
    gates = as_array(gated.semantic_gate), as_array(gated.spatial_gate)
    return Gates(layer, *gates, semantic_strength, spatial_strength)


def tell_fates(
    final: Tensor, queries: list[list[int]], classes: list[int], *, words: int, threshold: float
) -> tuple[np.ndarray, list[str]]:
    """Tell what became of each query in the panoptic reading.

    Args:
        final: (Q, T + 1) probabilities, void last.
        queries: Those of each segment.
        classes: That of each segment; those from `words` on are the background's, which no region has.

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
