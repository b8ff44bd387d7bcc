"""What a training recipe sets: which parameters train, how fast, and which decay."""

from torch import nn

UNDECAYED = (nn.LayerNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.Embedding)  # the third: synchronised ones too


def parameter_groups(model: nn.Module, *, rate: float, clip_factor: float, weight_decay: float) -> list[dict[str, object]]:
    """Group the trained parameters for an optimiser; the model says which they are (`is_trained`).

    ERR-Seg trains with rate 2e-4, CLIP's parameters ×0.01, weight decay 1e-4 and none on norms (paper, section 4.1); EOV-Seg with 1e-4,
    decay 0.05 and none on norms and embeddings.

    Returns:
        `{"params", "names", "lr", "weight_decay"}` per combination, in the order of first use.
    """
    undecayed = {
        f"{path}.{name}" for path, module in model.named_modules() if isinstance(module, UNDECAYED) for name, _ in module.named_parameters()
    }
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in model.named_parameters():
        if not model.is_trained(name):
            continue
        setting = (rate * (clip_factor if name.startswith("clip.") else 1), 0.0 if name in undecayed else weight_decay)
        group = groups.setdefault(setting, {"params": [], "names": [], "lr": setting[0], "weight_decay": setting[1]})
        group["params"].append(parameter)
        group["names"].append(name)
    return list(groups.values())
