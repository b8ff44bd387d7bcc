"""How weights are updated: AdamW, and Muon for the matrices of groups that ask for it."""

import torch
from torch import nn

from wordmask.training.recipe import Recipe

# of Muon's rate and AdamW's, at which both do well: an update of Muon's has the same size in every direction
MUON_RATE = 20


def matrices_by_muon(groups: list[dict[str, object]], rate: float = MUON_RATE) -> list[dict[str, object]]:
    """Split groups for `build_optimiser`: their matrices that decay follow Muon, all else stays with AdamW.

    Args:
        groups: As `parameter_groups` makes them; each gives up to two.
        rate: Of Muon's rate and AdamW's.
    """
    split = []
    for group in groups:
        pairs = list(zip(group["params"], group["names"], strict=True))
        chosen = [parameter.ndim == 2 and group["weight_decay"] > 0 for parameter, _ in pairs]
        for muon in (True, False):
            own = [pair for pair, by_muon in zip(pairs, chosen, strict=True) if by_muon is muon]
            if own:
                params, names = zip(*own, strict=True)
                split.append(
                    {
                        **group,
                        "params": [*params],
                        "names": [*names],
                        "lr": group["lr"] * (rate if muon else 1),
                        "muon": muon,
                    }
                )
    return split


class Together:
    """Several optimisers that step as one."""

    def __init__(self, optimisers: list[torch.optim.Optimizer]):
        self.optimisers = optimisers

    @property
    def param_groups(self) -> list[dict]:
        return [group for optimiser in self.optimisers for group in optimiser.param_groups]

    def step(self) -> None:
        for optimiser in self.optimisers:
            optimiser.step()

    def zero_grad(self) -> None:
        for optimiser in self.optimisers:
            optimiser.zero_grad()

    def state_dict(self) -> dict[str, object]:
        return {str(number): optimiser.state_dict() for number, optimiser in enumerate(self.optimisers)}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for number, optimiser in enumerate(self.optimisers):
            optimiser.load_state_dict(state[str(number)])


def build_optimiser(recipe: Recipe, model: nn.Module) -> torch.optim.AdamW | Together:
    """AdamW over the recipe's groups, Muon over those with `muon` true; what is in none of them gets no gradient."""
    groups = [{**group, "full_rate": group["lr"]} for group in recipe.groups(model)]
    model.requires_grad_(False)
    for group in groups:
        for parameter in group["params"]:
            parameter.requires_grad_(True)
    by_muon = [group for group in groups if group.pop("muon", False)]
    adamw = torch.optim.AdamW(
        [group for group in groups if not any(group is other for other in by_muon)], betas=recipe.betas, fused=True
    )
    return Together([adamw, torch.optim.Muon(by_muon)]) if by_muon else adamw
