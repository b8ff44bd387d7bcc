"""Which parameters learn, how fast, and how: AdamW, and Muon for the matrices of groups that ask for it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from wordmask.models import Model

# their weights don't decay; the third is what plain and synchronised batch norms have in common
UNDECAYED = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.Embedding)
# of Muon's rate and AdamW's, at which both do well: an update of Muon's has the same size in every direction
MUON_RATE = 20


@dataclass(frozen=True, eq=False)
class ParameterGroup:
    """Parameters that are updated alike.

    Args:
        parameters: By their names.
        rate: Learning rate, at its highest.
        weight_decay: The share of itself that a weight loses, per step and rate.
        muon: Whether Muon updates them, else AdamW.
    """

    parameters: Mapping[str, nn.Parameter]
    rate: float
    weight_decay: float
    muon: bool = False


def parameter_groups(model: Model, *, rate: float, clip_factor: float, weight_decay: float) -> list[ParameterGroup]:
    """Group the trained parameters for an optimiser; the model says which they are (`is_trained`).

    ERR-Seg trains with rate 2e-4, CLIP's parameters ×0.01, weight decay 1e-4 and none on norms (paper, section 4.1);
    EOV-Seg with 1e-4, decay 0.05 and none on norms and embeddings.

    Args:
        rate: Learning rate, at its highest.
        clip_factor: Of the rate, for CLIP's parameters.

    Returns:
        One group for each rate and decay, in the order of first use.
    """
    undecayed = set()
    for path, module in model.named_modules():
        if isinstance(module, UNDECAYED):
            undecayed |= {f"{path}.{name}" for name, _ in module.named_parameters()}
    groups: dict[tuple[float, float], dict[str, nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if model.is_trained(name):
            own_rate = rate * (clip_factor if name.startswith("clip.") else 1)
            own_decay = 0.0 if name in undecayed else weight_decay
            groups.setdefault((own_rate, own_decay), {})[name] = parameter
    return [ParameterGroup(parameters, *numbers) for numbers, parameters in groups.items()]


def matrices_by_muon(groups: list[ParameterGroup], rate: float = MUON_RATE) -> list[ParameterGroup]:
    """Split groups: their matrices that decay follow Muon, all else stays with AdamW.

    Args:
        groups: Each becomes up to two.
        rate: Of Muon's rate and AdamW's.
    """
    split = []
    for group in groups:
        by_muon = {name: p for name, p in group.parameters.items() if p.ndim == 2 and group.weight_decay > 0}
        by_adamw = {name: p for name, p in group.parameters.items() if name not in by_muon}
        split += [replace(group, parameters=by_muon, rate=group.rate * rate, muon=True)] if by_muon else []
        split += [replace(group, parameters=by_adamw)] if by_adamw else []
    return split


class Together(torch.optim.Optimizer):
    """Several optimisers that step as one."""

    def __init__(self, optimisers: list[torch.optim.Optimizer]):
        self.optimisers = optimisers
        super().__init__(self._groups(), {})

    def _groups(self) -> list[dict]:
        """The optimisers' own: whoever changes a rate here changes it there."""
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    # torch's takes a closure, the training loop has none
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for optimiser in self.optimisers:
            optimiser.step()

    def state_dict(self) -> dict[str, dict]:
        return {str(number): optimiser.state_dict() for number, optimiser in enumerate(self.optimisers)}

    def load_state_dict(self, state_dict: Mapping[str, dict]) -> None:
        for number, optimiser in enumerate(self.optimisers):
            optimiser.load_state_dict(state_dict[str(number)])
        self.param_groups = self._groups()


def build_optimiser(
    model: nn.Module, groups: list[ParameterGroup], *, betas: tuple[float, float] = (0.9, 0.999)
) -> torch.optim.Optimizer:
    """AdamW over the groups, Muon over those that ask for it; what is in none of them gets no gradient.

    Every group of the optimiser remembers its highest rate as `full_rate`.
    """
    model.requires_grad_(False)
    for group in groups:
        for parameter in group.parameters.values():
            parameter.requires_grad_(True)
    by_adamw = [_for_torch(group) for group in groups if not group.muon]
    by_muon = [_for_torch(group) for group in groups if group.muon]
    adamw = torch.optim.AdamW(by_adamw, betas=betas, fused=True)
    return Together([adamw, torch.optim.Muon(by_muon)]) if by_muon else adamw


def _for_torch(group: ParameterGroup) -> dict[str, list | float]:
    """A group as torch has it, and as checkpoints hold it."""
    return {
        "params": list(group.parameters.values()),
        "names": list(group.parameters),
        "lr": group.rate,
        "full_rate": group.rate,
        "weight_decay": group.weight_decay,
    }
