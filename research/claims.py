"""What the papers claim, and whether our small world agrees: a number with its spread on one side, a sentence on the
other."""

from collections.abc import Mapping

import numpy as np

from scenes import estimate

MARGIN = 1.0  # points: a score that is lower by less than this is kept
ROUNDS = 3  # of timing, at least: fewer tell no spread
NEAR = 1.0  # millions of parameters: the paper rounds to whole ones
SAID = {True: "Agrees", False: "Doesn't agree", None: "Can't be told"}

Claim = dict[str, object]  # plain values, for json


def better(
    text: str, drawn: Mapping[str, Mapping[str, np.ndarray]], *, new: str, old: str, score: str, **more
) -> Claim:
    """Claim that one variant scores higher than another.

    Args:
        drawn: Of every variant what `scenes.figures` gives.
        more: `paper`: what the paper has, in words. `seeds`: how far two trainings of the same model are apart, by
            score.
    """
    seeds = more.get("seeds") or {}
    difference = estimate(drawn[new][score] - drawn[old][score])
    said = {"difference": list(difference), "seeds": seeds.get(score), "paper": more.get("paper", "")}
    return {"kind": "better", "text": text, "unit": score, **said}


def kept(text: str, drawn: Mapping[str, Mapping[str, np.ndarray]], **details) -> Claim:
    """Claim that one variant scores as high as another, or higher; see `better`."""
    return better(text, drawn, **details) | {"kind": "kept"}


def faster(text: str, time: Mapping[str, float], paper: str = "") -> Claim:
    """Claim that a variant takes less time than what its ratio is to; see `count.ratios`."""
    difference = [time["ratio"], time["low"], time["high"]]
    return {"kind": "faster", "text": text, "difference": difference, "rounds": time["runs"], "paper": paper}


def slower(text: str, time: Mapping[str, float], paper: str = "") -> Claim:
    """Claim that a variant takes more time than what its ratio is to."""
    return faster(text, time, paper) | {"kind": "slower"}


def near(text: str, ours: float, theirs: float) -> Claim:
    """Claim that a number of parameters, in millions, is the paper's."""
    return {"kind": "near", "text": text, "difference": [ours, theirs]}


def holds(claim: Claim) -> bool | None:
    """Whether the figures agree with a claim; None where the spread, of scenes and of trainings together, leaves it
    open."""
    if claim["kind"] == "near":
        ours, theirs = claim["difference"]
        return abs(ours - theirs) <= NEAR
    _, low, high = claim["difference"]
    if claim["kind"] in ("faster", "slower"):
        enough = claim["rounds"] >= ROUNDS
        below, above = enough and high < 1, enough and low > 1
        agrees, disagrees = (below, above) if claim["kind"] == "faster" else (above, below)
    else:
        spread = claim["seeds"] or 0.0
        agrees = low - spread > (0 if claim["kind"] == "better" else -MARGIN)
        disagrees = high + spread < 0
    return True if agrees else False if disagrees else None


def sentence(claim: Claim) -> str:
    """Say whether a claim holds, with the numbers."""
    return f"**{SAID[holds(claim)]}**: {stated(claim)}"


def stated(claim: Claim) -> str:
    """A claim and its numbers."""
    return f"{claim['text']}. {numbers(claim)}"


def numbers(claim: Claim) -> str:
    """The figures behind a claim, in words."""
    if claim["kind"] == "near":
        return "Ours {:.1f} M, the paper's {:.0f} M.".format(*claim["difference"])
    value, low, high = claim["difference"]
    if claim["kind"] in ("faster", "slower"):
        spread = f"{low:.2f} to {high:.2f} in the middle half of {claim['rounds']} rounds"
        said = f"{value:.2f} of the time ({spread if claim['rounds'] > 1 else 'one round'})."
    else:
        said = f"{signed(value)} {claim['unit']} ({signed(low)} to {signed(high)} in 95 % of draws of the scenes)."
        if claim["seeds"] is not None:
            said += f" Two trainings of one model, from other random numbers, are {claim['seeds']:.1f} apart."
    return said + (f" Paper: {claim['paper']}." if claim["paper"] else "")


def signed(value: float) -> str:
    """A difference with its sign, and one place."""
    return f"{value:+.1f}".replace("-", "−")
