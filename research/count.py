"""What a variant costs: parameters, operations, and its time beside that of the model it varies.

Without the text tower, which words are encoded by once.
"""

import statistics
import time
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from variants import Variant
from wordmask import clip
from wordmask.bench.timing import finish
from wordmask.models import kind_of
from wordmask.text import Words
from wordmask.vocabulary import Vocabulary
from wordmask.weights import TEXT_TOWER

START = 0.02  # deviation of the weights that times are taken with


def skeleton(variant: Variant, preset: str) -> nn.Module:
    """Build a variant without values, in evaluation mode."""
    with torch.device("meta"):
        return variant.build(kind_of(preset).presets[preset]).eval().requires_grad_(False)


def parameters_of(model: nn.Module) -> int:
    """How many weights there are, but for the text tower's."""
    return sum(parameter.numel() for name, parameter in model.named_parameters() if not name.startswith(TEXT_TOWER))


def some_words(vocabulary: str, family: str, width: int) -> Words:
    """Random unit vectors for the phrases of a built-in list, as many as a family encodes."""
    classes = Vocabulary.of(vocabulary, family)
    phrases = [len(entry.names) if family == "eov-seg" else 1 for entry in classes]
    owner = torch.arange(len(classes)).repeat_interleave(torch.tensor(phrases))
    vectors = torch.randn(len(owner), width, generator=torch.Generator().manual_seed(0))
    return Words(F.normalize(vectors, dim=-1), owner, torch.ones(len(classes), dtype=torch.bool))


def count(variant: Variant, preset: str, vocabulary: str) -> dict[str, int]:
    """Count the parameters of a variant, and the multiplications with addition for one square picture; nothing is
    computed.

    Args:
        preset: Gives the configuration and the side of the picture.
    """
    model = skeleton(variant, preset)
    parameters, words = parameters_of(model), some_words(vocabulary, variant.family, model.config.clip.width)
    tower = getattr(model, "spatial", None)
    spatial = sum(parameter.numel() for parameter in tower.parameters()) if tower is not None else 0
    counter = FlopCounterMode(display=False)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode(), sdpa_kernel(SDPBackend.MATH), counter:
        model.to_empty(device="cpu")
        model(torch.empty(1, 3, side_of(model), side_of(model)), words)
    return {"parameters": parameters, "spatial tower": spatial, "operations": counter.get_total_flops() // 2}


def side_of(model: nn.Module) -> int:
    """The side of a square picture as the model sees it, in pixels."""
    wanted = model.image_input
    return wanted.square or wanted.shortest_edge


def time_variants(
    variants: Mapping[str, Variant],
    preset: str,
    vocabulary: str,
    *,
    runs: int,
    device: torch.device,
    side: int | None = None,
) -> dict[str, dict[str, float]]:
    """Time one square picture through every variant, all in turn; see `ratios`. The first variant is what others are
    compared with.

    All share one CLIP, so that full-size variants fit in memory together. Weights are random: speed doesn't depend on
    them.

    Args:
        side: Of the picture, in pixels, a multiple of 32; the model's own by default.
    """
    config = kind_of(preset).presets[preset]
    tower = clip.build(config.clip).requires_grad_(False).to(device)
    models = {name: with_values(skeleton(variant, preset), tower, device) for name, variant in variants.items()}
    family, side = next(iter(variants.values())).family, side or side_of(next(iter(models.values())))
    words = Words(*(tensor.to(device) for tensor in some_words(vocabulary, family, config.clip.width)))
    pixels = torch.randn(1, 3, side, side, device=device)
    actions = {name: lambda model=model: model(pixels, words) for name, model in models.items()}
    return ratios(interleaved(actions, runs, device), next(iter(models)))


def with_values(model: nn.Module, tower: nn.Module, device: torch.device) -> nn.Module:
    """Give a skeleton a CLIP, and small random weights everywhere else; fold what can be folded."""
    model.clip = nn.Identity()
    model.to_empty(device=device)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 and name.endswith("weight"):
            nn.init.ones_(parameter)
        else:
            nn.init.normal_(parameter, std=START)
    for name, buffer in model.named_buffers():
        nn.init.constant_(buffer, float(name.endswith("running_var")))
    model.clip = tower
    return model.for_inference()


@torch.inference_mode()
def interleaved(actions: Mapping[str, Callable[[], object]], runs: int, device: torch.device) -> dict[str, list[float]]:
    """Time actions in turn, `runs` rounds after a warm-up: what disturbs the machine disturbs all of them. In
    seconds."""
    for action in actions.values():
        action()
    seconds = {name: [] for name in actions}
    for _ in range(runs):
        for name, action in actions.items():
            finish(device)
            started = time.perf_counter()
            action()
            finish(device)
            seconds[name].append(time.perf_counter() - started)
    return seconds


def ratios(seconds: Mapping[str, list[float]], base: str) -> dict[str, dict[str, float]]:
    """Of every action: the median time in seconds, and the median and the quartiles of its ratio to the base in the
    same round."""
    found = {}
    for name, times in seconds.items():
        quotients = [one / other for one, other in zip(times, seconds[base], strict=True)]
        low, middle, high = (
            statistics.quantiles(quotients, n=4, method="inclusive") if len(quotients) > 1 else quotients * 3
        )
        found[name] = {
            "seconds": statistics.median(times),
            "ratio": middle,
            "low": low,
            "high": high,
            "runs": len(times),
        }
    return found
