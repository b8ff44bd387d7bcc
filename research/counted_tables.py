"""What every full-size variant costs, beside what the EOV-Seg paper says; nothing is trained."""

from typing import TYPE_CHECKING

from claims import faster, near, slower
from count import count, time_variants
from retrained_tables import cost_of
from variants import Variant, sized

if TYPE_CHECKING:
    from tables import Settings

VOCABULARIES = {"err-seg": "ade20k-847", "eov-seg": "ade20k-150"}  # those of the papers' own times
NOTES = [
    (
        "Parameters are without the text tower. Operations are multiplications with addition, for one square picture "
        "of the model's own size."
    ),
    (
        "Weights are random, and all variants share one CLIP. Time is `forward`'s, in turn with the others, at the "
        "pixels named below; what"
    ),
    "grows with the square of a map's pixels, such as whole attention, weighs less in a smaller picture.",
]


def counted(
    settings: "Settings", family: str, title: str
) -> tuple[dict[str, object], dict[str, dict], dict[str, dict]]:
    """Count every full-size variant of a family; time those that `settings` asks for, if any."""
    preset, vocabulary, variants = f"{family}-large", VOCABULARIES[family], sized(family, small=False)
    counts = {name: count(variant, preset, vocabulary) for name, variant in variants.items()}
    times, runs, side = {}, settings.full_size_runs, settings.full_size_side
    if runs:
        times = time_variants(variants, preset, vocabulary, runs=runs, device=settings.device, side=side)
    rows = [{"variant": name} | cost_of(variants[name], counts[name]) | timed(times, name) for name in variants]
    found = {"title": title, "base": next(iter(variants)), "plot": "dots", "rows": rows, "notes": [*NOTES]}
    return (
        found
        | {
            "conditions": settings.conditions(
                None, {"model": preset, "words": vocabulary, "timed": f"at {side or 'its own'} pixels"}
            )
        },
        counts,
        times,
    )


def timed(times: dict[str, dict], name: str) -> dict[str, dict]:
    """The time of a row, where it was taken."""
    return {"time": times[name]} if times else {}


def eov_seg_table(settings: "Settings") -> dict[str, object]:
    """EOV-Seg L with every part that its paper varies."""
    table, counts, times = counted(settings, "eov-seg", "EOV-Seg L: what every variant costs")
    variants = sized("eov-seg", small=False)
    base = variants["EOV-Seg"].published
    without = [name for name in variants if name != "EOV-Seg"]
    claims = [growth(variants, counts, new="EOV-Seg", old="no fusion, VAS")]
    claims += [growth(variants, counts, new=name, old="no fusion, VAS") for name in ("EAF, VAS", "SDI, VAS")]
    claims += [
        growth(variants, counts, new=name, old="EOV-Seg") for name in without if "block" in name or "scale" in name
    ]
    for name in without if times else ():
        ratio = base.fps / variants[name].published.fps
        said = f"{ratio:.2f} of the time"
        if abs(ratio - 1) >= 0.02:  # the paper's own figures have three digits at most
            claim = faster if ratio < 1 else slower
            claims.append(claim(f"{name}: {'less' if ratio < 1 else 'more'} time than EOV-Seg", times[name], said))
    notes = [
        (
            "For these claims the parameters of the spatial tower itself are left out: so the paper's own sums come "
            "out best."
        ),
        "Of times only the direction is claimed, and nothing where the paper's own are within 2 % of each other.",
    ]
    return table | {"claims": claims, "notes": [*NOTES, *notes]}


def growth(variants: dict[str, Variant], counts: dict[str, dict], *, new: str, old: str) -> dict[str, object]:
    """Claim that a variant has as many parameters more than another as the paper says.

    The spatial tower is left out where it is the paper's, one block of a ViT-B; of longer ones the blocks added to it
    count.
    """
    first_block = counts["EOV-Seg"]["spatial tower"]

    def ours(name: str) -> float:
        return (counts[name]["parameters"] - min(first_block, counts[name]["spatial tower"])) / 1e6

    theirs = variants[new].published.parameters - variants[old].published.parameters
    return near(f"{new} has as many parameters more than {old} as the paper says", ours(new) - ours(old), theirs)


def err_seg_table(settings: "Settings") -> dict[str, object]:
    """ERR-Seg L without what its paper claims."""
    table, _, times = counted(settings, "err-seg", "ERR-Seg L: what every variant costs")
    claims = [
        slower(f"whole sequences take more time ({name})", times[name])
        for name in (("no spatial reduction", "no class reduction", "no reduction") if times else ())
    ]
    return table | {"claims": claims}
