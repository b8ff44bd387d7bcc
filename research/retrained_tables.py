"""What wants a training for each variant: ERR-Seg's cost maps and reductions; EOV-Seg's selection, fusion, interaction
and extractor."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING

from bundled_tables import WORDS, row
from claims import better, faster, kept, slower
from count import count, time_variants
from retrain import STEPS, retrain, with_clip
from scenes import figures
from variants import ERR_SEG, FUSIONS, INTERACTIONS, SMALL_EXTRACTORS, Variant
from wordmask.data.shapeland import Shapeland, unseen_classes

if TYPE_CHECKING:
    from tables import Settings

Claims = Callable[[dict[str, dict], dict[str, dict], dict[str, float]], list[dict]]
NOTES = [
    (
        "Short trainings, equal in steps, pictures and random numbers; "
        "variants begin with the same values wherever names "
        "and shapes agree."
    ),
    (
        "They are beginnings: the bundled models took 4500 (ERR-Seg) and 5000 steps (EOV-Seg). "
        "What is learned soonest wins here."
    ),
    (
        "Each was trained once, the first twice: a difference counts if it is beyond its interval by more than those "
        "two are apart."
    ),
]


def trained_table(
    title: str, variants: dict[str, Variant], settings: "Settings", claims: Claims, notes: list[str]
) -> dict[str, object]:
    """Train every variant, and the first once more; score all on the same scenes, count and time them.

    Args:
        claims: (figures by variant, times by variant, how far two trainings are apart) → claims.
    """
    base, family = next(iter(variants)), next(iter(variants.values())).family
    preset, data, unseen = f"{family}-tiny", Shapeland(WORDS, "test", settings.scenes), unseen_classes(WORDS)
    steps = settings.budget.steps or STEPS[family]
    budget = with_clip(settings.budget, steps)
    drawn = {name: figures(retrain(variant, name, budget, data), unseen) for name, variant in variants.items()}
    again = figures(retrain(variants[base], base, budget, data, seed=1), unseen)
    seeds = {score: abs(float(values[0] - again[score][0])) for score, values in drawn[base].items()}
    counts = {name: count(variant, preset, WORDS) for name, variant in variants.items()}
    times = time_variants(variants, preset, WORDS, runs=settings.runs, device=settings.device)
    rows = [row(name, drawn[name], times[name]) | cost_of(variants[name], counts[name]) for name in variants]
    rows.insert(1, row(f"{base}, another seed", again))
    given = {
        "model": preset,
        "clip": str(settings.budget.clip or "the bundled models'"),
        "steps": steps,
        "seeds": "0; 1",
    }
    return {
        **{"title": title, "base": base, "plot": "dots", "rows": rows, "claims": claims(drawn, times, seeds)},
        **{"notes": [*NOTES, *notes], "conditions": settings.conditions(data, given)},
    }


def cost_of(variant: Variant, counted: dict[str, int]) -> dict[str, object]:
    """What was counted, and what the paper says, for a row."""
    return {"cost": counted} | ({"published": asdict(variant.published)} if variant.published else {})


def reductions_table(settings: "Settings") -> dict[str, object]:
    """ERR-Seg: hierarchical cost maps, and sequences reduced in space and per class."""

    def claims(drawn, times, seeds):
        compared = {"new": "ERR-Seg", "score": "mIoU", "seeds": seeds}
        return [
            *(
                better(f"both cost maps are better than {one}", drawn, old=one, **compared)
                for one in ("x32 alone", "x16 alone")
            ),
            *(
                kept(f"reduced sequences keep the mIoU of the whole ones ({name})", drawn, old=name, **compared)
                for name in ("no spatial reduction", "no class reduction", "no reduction")
            ),
            *(
                slower(f"whole sequences take more time ({name})", times[name])
                for name in ("no spatial reduction", "no class reduction", "no reduction")
            ),
        ]

    notes = ["The paper has these claims in words and tables of its own; their figures are not in our notes."]
    return trained_table("ERR-Seg: cost maps and reductions", ERR_SEG, settings, claims, notes)


def fusion_table(settings: "Settings") -> dict[str, object]:
    """EOV-Seg: vocabulary-aware selection and the fusion of both towers, on and off."""

    def claims(drawn, times, seeds):
        pairs = {
            "VAS helps TDEE": ("EOV-Seg", "TDEE, no VAS"),
            "VAS helps without fusion": ("no fusion, VAS", "no fusion, no VAS"),
            "TDEE is better than no fusion": ("EOV-Seg", "no fusion, VAS"),
            "TDEE is better than no fusion, without VAS": ("TDEE, no VAS", "no fusion, no VAS"),
            "TDEE is better than EAF": ("EOV-Seg", "EAF, VAS"),
            "TDEE is better than SDI": ("EOV-Seg", "SDI, VAS"),
            "EAF is better without VAS than with it": ("EAF, no VAS", "EAF, VAS"),
        }
        found = [
            better(text, drawn, new=new, old=old, score="PQ", seeds=seeds, paper=published_pq(FUSIONS, new, old))
            for text, (new, old) in pairs.items()
        ]
        return [
            *found,
            faster(
                "no fusion takes less time than TDEE", times["no fusion, VAS"], "11.6 pictures per second, 13.6 without"
            ),
        ]

    return trained_table("EOV-Seg: selection and fusion", FUSIONS, settings, claims, [])


def interaction_table(settings: "Settings") -> dict[str, object]:
    """EOV-Seg: how kernels and map interact."""
    variants = {"EOV-Seg": FUSIONS["EOV-Seg"], **INTERACTIONS}

    def claims(drawn, times, seeds):
        compared = {"new": "EOV-Seg", "score": "PQ", "seeds": seeds}
        found = [
            better("one scale is better than several", drawn, old="dynamic, multi-scale", **compared),
            better(
                "dynamic taps are better than cross-attention at one scale",
                drawn,
                old="cross-attention, single-scale",
                **compared,
            ),
            kept(
                "dynamic taps at one scale keep the PQ of cross-attention at several",
                drawn,
                old="cross-attention, multi-scale",
                **compared,
            ),
        ]
        for claim, name in zip(found, INTERACTIONS, strict=True):
            claim["paper"] = published_pq(variants, "EOV-Seg", name)
        base = variants["EOV-Seg"].published.fps
        return found + [
            slower(f"{name} takes more time", times[name], f"{base / variant.published.fps:.2f} of the time")
            for name, variant in INTERACTIONS.items()
        ]

    return trained_table("EOV-Seg: interaction in the decoder", variants, settings, claims, [])


def blocks_table(settings: "Settings") -> dict[str, object]:
    """EOV-Seg: how many blocks of the spatial ViT run."""
    variants = {"EOV-Seg": FUSIONS["EOV-Seg"], **SMALL_EXTRACTORS}

    def claims(drawn, times, seeds):
        paper = "24.5 PQ with block 0, 23.8 with block 5, 23.7 with block 11, of 12"
        compared = {"new": "EOV-Seg", "score": "PQ", "seeds": seeds, "paper": paper}
        return [
            *(kept(f"the first block is enough ({name})", drawn, old=name, **compared) for name in SMALL_EXTRACTORS),
            *(slower(f"more blocks take more time ({name})", times[name]) for name in SMALL_EXTRACTORS),
        ]

    notes = [
        (
            "Shapeland's ViT has three blocks, the paper's twelve. The bundled models hold the first; "
            "`starting_clip` trained the others."
        ),
        "There are no DINOv2 and SAM that know Shapeland: those are only counted.",
    ]
    return trained_table("EOV-Seg: blocks of the spatial extractor", variants, settings, claims, notes)


def published_pq(variants: dict[str, Variant], new: str, old: str) -> str:
    """The paper's figures for two variants, in words."""
    return f"{variants[new].published.pq} against {variants[old].published.pq} PQ"
