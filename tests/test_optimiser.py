"""Who updates which weights, and that it goes on where it stopped."""

import copy

import torch
from torch import nn

from wordmask.clip import CONVNEXT_MINI, VIT_MINI
from wordmask.training.optimiser import MUON_RATE, ParameterGroup, Together, build_optimiser
from wordmask.training.tiny_clip.pair import ClipPair, PairConfig, muon_groups


def groups_of(model: nn.Module) -> list[ParameterGroup]:
    return muon_groups(model, rate=1e-2, weight_decay=0.1)


def test_muon_takes_the_matrices_and_nothing_else():
    model = ClipPair(PairConfig(CONVNEXT_MINI, VIT_MINI, vit_layers=1))
    adamw, muon = build_optimiser(model, groups_of(model)).optimisers
    names = {parameter: name for name, parameter in model.named_parameters()}
    by_muon = {names[parameter] for group in muon.param_groups for parameter in group["params"]}
    by_adamw = [names[parameter] for group in adamw.param_groups for parameter in group["params"]]
    assert by_muon.isdisjoint(by_adamw)
    assert by_muon | set(by_adamw) == set(names.values())
    assert "clip.text_projection" in by_muon
    assert any(name.endswith("mlp.fc1.weight") for name in by_muon), "a ConvNeXt's"
    assert "clip.token_embedding.weight" in by_adamw
    assert all(parameter.ndim == 2 for parameter, name in names.items() if name in by_muon)
    assert {group["full_rate"] for group in muon.param_groups} == {MUON_RATE * 1e-2}
    undecayed = {
        names[parameter] for group in adamw.param_groups if not group["weight_decay"] for parameter in group["params"]
    }
    assert {"clip.logit_scale", "clip.positional_embedding", "vit.class_embedding"} <= undecayed


def test_a_recipe_without_muon_has_adamw_alone():
    model = nn.Linear(2, 2)
    weight = ParameterGroup({"weight": model.weight}, rate=1.0, weight_decay=0.01)
    assert isinstance(build_optimiser(model, [weight]), torch.optim.AdamW)
    assert not model.bias.requires_grad


def test_both_go_on_where_they_stopped():
    def steps(model: nn.Module, optimiser: Together, count: int) -> None:
        for number in range(count):
            model(torch.full((1, 3), 1.0 + number)).square().sum().backward()
            optimiser.step()
            optimiser.zero_grad()

    torch.manual_seed(0)
    whole = nn.Linear(3, 4)
    optimiser = build_optimiser(whole, groups_of(whole))
    steps(whole, optimiser, 3)
    parts, state = copy.deepcopy(whole), copy.deepcopy(optimiser.state_dict())
    again = build_optimiser(parts, groups_of(parts))
    again.load_state_dict(state)
    steps(whole, optimiser, 2)
    steps(parts, again, 2)
    assert torch.equal(whole.weight, parts.weight)
    assert torch.equal(whole.bias, parts.bias)
    assert len(again.param_groups) == 2


def test_rates_reach_every_optimiser_also_after_it_went_on():
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    optimiser = build_optimiser(model, groups_of(model))
    optimiser.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for group in optimiser.param_groups:
        group["lr"] = 0.0
    before = [parameter.detach().clone() for parameter in model.parameters()]
    model(torch.ones(1, 3)).square().sum().backward()
    optimiser.step()
    assert all(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def test_groups_are_kept_as_checkpoints_have_them():
    """A training that was begun by an older version goes on."""
    model = ClipPair(PairConfig(CONVNEXT_MINI, VIT_MINI, vit_layers=1))
    state = build_optimiser(model, groups_of(model)).state_dict()
    assert state.keys() == {"0", "1"}
    for part in state.values():
        for group in part["param_groups"]:
            assert {"params", "names", "lr", "full_rate", "weight_decay"} <= group.keys()
            assert "muon" not in group
