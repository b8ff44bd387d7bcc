"""What can be told of the bundled models as they are: K classes, the three ensembles, and one, two or three decoder
layers."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from claims import better, faster, kept
from count import interleaved, ratios
from scenes import estimate, figures, score_scenes
from wordmask.data.shapeland import Shapeland, unseen_classes
from wordmask.models.eov_seg import EovSeg, geometric_ensemble
from wordmask.models.load import load_model
from wordmask.segmenter import Segmenter
from wordmask.weights import fingerprint

if TYPE_CHECKING:
    from tables import Settings

KEPT = (8, 16, 32, 48, 96, 847)
CHOSEN = 48  # the paper's K for 847 classes
WORDS, MANY_WORDS = "shapeland-150", "shapeland-847"


def own_alone(own: Tensor, clips: Tensor, seen: Tensor, has_region: Tensor) -> Tensor:
    """The decoder's class probabilities, without CLIP's opinion."""
    return own.log_softmax(dim=-1)


def clip_alone(own: Tensor, clips: Tensor, seen: Tensor, has_region: Tensor) -> Tensor:
    """CLIP's opinion of the regions; only whether a region is void the decoder says."""
    void = own.softmax(dim=-1)[..., -1:]
    return torch.cat([clips[..., :-1].softmax(dim=-1) * (1 - void), void], dim=-1).clamp(min=1e-8).log()


ENSEMBLES = {"both": geometric_ensemble, "the decoder alone": own_alone, "CLIP alone": clip_alone}


def keep_table(settings: "Settings") -> dict[str, object]:
    """ERR-Seg's first claim: most classes aren't worth refining."""
    loaded = load_model("err-seg-tiny")
    model = loaded.model.for_inference().to(settings.device)
    data, unseen = Shapeland(MANY_WORDS, "test", settings.scenes), unseen_classes(MANY_WORDS)
    choices = {f"K = {keep}": keep for keep in sorted({min(keep, len(data.vocabulary)) for keep in settings.kept})}
    everything, *_ = reversed(choices)
    drawn = {name: figures(score_scenes(model, data, keep=keep), unseen) for name, keep in choices.items()}
    segmenter, rgb = Segmenter(model), data[0].rgb
    asked = {name: lambda keep=keep: segmenter(rgb, data.vocabulary, keep=keep) for name, keep in choices.items()}
    times = ratios(interleaved(asked, settings.runs, settings.device), everything)
    compared = {"new": f"K = {CHOSEN}", "old": everything}
    paper = "3.1 times as fast as CAT-Seg, which refines all of A-847, and 0.9 mIoU better"
    claims = [
        kept("48 of 847 classes keep the mIoU of all", drawn, score="mIoU", paper=paper, **compared),
        kept("also that of unseen classes", drawn, score="mIoU unseen", **compared),
        faster("48 classes take less time than all", times[f"K = {CHOSEN}"], paper),
        kept("16 classes keep the mIoU of 48", drawn, score="mIoU", new="K = 16", old=f"K = {CHOSEN}"),
    ]
    return {
        **{"title": "ERR-Seg: K of 847 classes", "base": everything, "plot": "curve"},
        "rows": [row(name, drawn[name], times[name]) | {"K": keep} for name, keep in choices.items()],
        **{"claims": claims, "notes": ["Time is that of a whole call with known words, reading out included."]},
        "conditions": settings.conditions(data, {"model": "err-seg-tiny", "weights": fingerprint(model.state_dict())}),
    }


def ensembles_table(settings: "Settings") -> dict[str, object]:
    """EOV-Seg's class probabilities: the decoder's own, CLIP's opinion of each region, and both."""
    model, data, unseen = eov_seg(settings)
    drawn = {}
    for name, ensemble in ENSEMBLES.items():
        model.ensemble = ensemble
        drawn[name] = figures(score_scenes(model, data), unseen)
    model.ensemble = geometric_ensemble
    claims = [
        *(
            better(f"both are better than {one}", drawn, new="both", old=one, score=score)
            for score in ("PQ", "mIoU")
            for one in ("the decoder alone", "CLIP alone")
        ),
        better("unseen classes gain by CLIP's opinion", drawn, new="both", old="the decoder alone", score="PQ unseen"),
        better("seen classes gain by the decoder's", drawn, new="both", old="CLIP alone", score="PQ seen"),
    ]
    return {
        **{"title": "EOV-Seg: the decoder's opinion, CLIP's, and both", "base": "both", "plot": "dots"},
        "rows": [row(name, values) for name, values in drawn.items()],
        **{
            "claims": claims,
            "notes": ["The paper has the ensemble from FC-CLIP and no table of it; the claims are its reasons."],
        },
        "conditions": settings.conditions(data, {"model": "eov-seg-tiny", "weights": fingerprint(model.state_dict())}),
    }


def layers_table(settings: "Settings") -> dict[str, object]:
    """EOV-Seg's decoder cut after its first, second and third layer: every layer learned to draw and to name by
    itself."""
    model, data, unseen = eov_seg(settings)
    layers, drawn, actions = model.layers, {}, {}
    pixels = torch.randn(1, 3, model.config.shortest_edge, model.config.shortest_edge, device=settings.device)
    words = Segmenter(model).encode_words(data.vocabulary)
    for count in range(1, len(layers) + 1):
        name = f"{count} layer{'s' if count > 1 else ''}"
        model.layers = layers[:count]
        drawn[name] = figures(score_scenes(model, data), unseen)
        actions[name] = cut(model, layers[:count], lambda: model(pixels, words))
    *fewer, every = drawn
    times = ratios(interleaved(actions, settings.runs, settings.device), every)
    model.layers = layers
    claims = [better(f"{every} are better than {name}", drawn, new=every, old=name, score="PQ") for name in fewer]
    claims += [
        faster(f"{name} take{'s' if name.startswith('1') else ''} less time than {every}", times[name])
        for name in fewer
    ]
    return {
        **{"title": "EOV-Seg: decoder layers", "base": every, "plot": "dots"},
        "rows": [row(name, values, times[name]) for name, values in drawn.items()],
        "claims": claims,
        "notes": [
            "Read out from one model, which was trained with three layers; none was trained with fewer.",
            "Time is `forward`'s.",
        ],
        "conditions": settings.conditions(data, {"model": "eov-seg-tiny", "weights": fingerprint(model.state_dict())}),
    }


def cut(model: EovSeg, layers: nn.ModuleList, action: Callable[[], object]) -> Callable[[], object]:
    """An action for a model that has these layers while it runs."""

    def run() -> object:
        model.layers = layers
        return action()

    return run


def eov_seg(settings: "Settings") -> tuple[EovSeg, Shapeland, object]:
    """The bundled model with all layers' class vectors, the scenes, and which classes training never saw."""
    model = load_model("eov-seg-tiny").model.eval().to(settings.device)
    return model, Shapeland(WORDS, "test", settings.scenes), unseen_classes(WORDS)


def row(name: str, drawn: Mapping[str, object], time: Mapping[str, float] | None = None) -> dict[str, object]:
    """A row of a table in plain values."""
    scores = {score: list(estimate(values)) for score, values in drawn.items()}
    return {"variant": name, "scores": scores} | ({"time": dict(time)} if time else {})
