"""The one training loop, for every model; start it with `wordmask train`, or on several GPUs with
`torchrun -m wordmask train`."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from wordmask import fingerprints
from wordmask.hardware import choose_device
from wordmask.processes import Processes, mean_over_processes
from wordmask.surroundings import as_if_alone, float32_by_default
from wordmask.training.checkpoints import TrainingState
from wordmask.training.curves import TrainingJournal
from wordmask.training.loading import PartsAhead, Share, parts_per_step
from wordmask.training.optimiser import build_optimiser
from wordmask.training.recipe import Batch, Recipe, TrainingSettings
from wordmask.training.signals import StopSignal

MIX = 1_000_003  # a prime, so that seed and step give different streams


class TrainingOutcome(NamedTuple):
    """The scores of the last validation, and whether the last step was done."""

    scores: dict[str, float]
    finished: bool


@as_if_alone()
@float32_by_default()
def train(recipe: Recipe, settings: TrainingSettings) -> TrainingOutcome:
    """Train until the last step, or until SIGTERM or Ctrl-C; a training found in the folder goes on where it was saved.

    Raises:
        ValueError: The batch can't be divided, the folder holds another training, a picture is bad, or a loss or
            gradient is not finite.
    """
    device = choose_device(Processes.started().device(settings.device))
    processes = Processes.join(device)
    rank, count = processes.rank, processes.count
    parts = parts_per_step(settings, count, divisible=recipe.divisible)
    model = recipe.model.to(device)
    if device.type == "cuda" and count > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    optimiser = build_optimiser(model, recipe.groups(model), betas=recipe.betas)
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
    state = TrainingState(
        settings,
        model,
        optimiser,
        scaler,
        fingerprint=recipe.fingerprint,
        code=code_of(recipe, settings),
        save=recipe.save,
        writes=processes.first,
    )
    first = agree_on_first(state.resume(), count, device)
    learner = ModelWithLoss(model.train(), recipe)
    if count > 1:
        learner = DistributedDataParallel(learner, device_ids=[device] if device.type == "cuda" else None)
    share = Share(rank, count, parts, settings.batch, range(first, settings.steps))
    ahead = PartsAhead(recipe, share, workers=settings.workers, pin=device.type == "cuda")
    precision = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(settings.precision)
    stopped = False

    with StopSignal() as stop, TrainingJournal(settings, first, quiet=not processes.first) as journal, ahead:
        if state.validation_due:
            validate_now(recipe, model, state, journal, step=first)
        for step in range(first, settings.steps):
            started, factor = time.perf_counter(), recipe.schedule(step)
            for group in optimiser.param_groups:
                group["lr"] = group["full_rate"] * factor
            whole = ahead.take(parts, device)
            loss = torch.zeros((), device=device)
            for number, part in enumerate(whole):
                # of this part, in any division of the work
                seed = (settings.seed * MIX + step) * MIX + number * count + rank
                torch.manual_seed(seed % 2**63)
                with gradients_stay(learner, until_last=number < parts - 1):
                    with torch.autocast(device.type, precision, enabled=precision is not None):
                        part_loss = learner(part, whole) / parts
                    if not part_loss.isfinite():
                        raise ValueError(not_finite("loss", step, [part], settings.rate * factor, state))
                    scaler.scale(part_loss).backward()
                loss += part_loss.detach()
            scaler.unscale_(optimiser)
            norm = nn.utils.clip_grad_norm_(trained, recipe.gradient_norm or float("inf"))
            # in float16 the scaler leaves such a step out, and goes on
            if not scaler.is_enabled() and not norm.isfinite():
                raise ValueError(not_finite("gradient", step, whole, settings.rate * factor, state))
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad()
            loss, stopped = agree(loss, stop.received)
            done = step + 1
            journal.write(done, loss, settings.rate * factor, settings.batch / (time.perf_counter() - started))
            due = done % settings.validate_every == 0 or done == settings.steps
            if due or stopped or done % settings.save_every == 0:
                journal.flush()
                state.write(done, validation_due=due)
            if stopped and done < settings.steps:
                journal.say(f"Stopped after step {done} of {settings.steps}; the same command goes on from there.")
                break
            if due:
                validate_now(recipe, model, state, journal, step=done)
    processes.leave()
    return TrainingOutcome(state.scores, finished=not stopped or state.step == settings.steps)


def code_of(recipe: Recipe, settings: TrainingSettings) -> str:
    """The fingerprint of all code that a training runs: wordmask's, the recipe's, that of the model's parts."""
    return fingerprints.of_code({*recipe.sources, *fingerprints.files_that_define([settings, *recipe.model.modules()])})


@torch.no_grad()
def validate_now(
    recipe: Recipe, model: nn.Module, state: TrainingState, journal: TrainingJournal, *, step: int
) -> None:
    """Score the model, in the first process; note the scores, and keep the weights if they are the best."""
    if state.writes:
        scores = recipe.validate(model.eval(), state.folder / "pictures" / f"{step:06}")
        journal.write_scores(step, scores)
        state.keep_best(scores)
        state.write(step, validation_due=False)
    model.train()


class ModelWithLoss(nn.Module):
    """Model and loss in one module, so that gradients are averaged over processes while they are computed."""

    def __init__(self, model: nn.Module, recipe: Recipe):
        super().__init__()
        self.model = model
        self.loss = recipe.loss

    def forward(self, part: Batch, whole: list[Batch]) -> Tensor:
        return self.loss(self.model, part, whole)


def gradients_stay(learner: nn.Module, *, until_last: bool) -> AbstractContextManager:
    """Add up gradients within each process while parts are still to come; those of the last part are averaged with the
    other processes'."""
    return learner.no_sync() if until_last and isinstance(learner, DistributedDataParallel) else nullcontext()


def agree_on_first(first: int, count: int, device: torch.device) -> int:
    """The step to begin with, which all processes must have found alike.

    Raises:
        ValueError: They haven't: machines that don't share a disk.
    """
    if count > 1:
        both = torch.tensor([first, -first], device=device)
        distributed.all_reduce(both, op=distributed.ReduceOp.MAX)
        if both[0] != -both[1]:
            raise ValueError(
                f"Some processes found a checkpoint of step {both[0]}, others of step {-both[1]}. "
                "Let all see the same folder."
            )
    return first


def agree(loss: Tensor, stop: bool) -> tuple[float, bool]:
    """The mean loss, and whether any process was asked to stop: all of them leave after the same step."""
    both = mean_over_processes(torch.stack([loss.float(), loss.new_tensor(float(stop)).float()]))
    return float(both[0]), bool(both[1] > 0)


def not_finite(what: str, step: int, parts: list[Batch], rate: float, state: TrainingState) -> str:
    """What to say when a loss or a gradient is infinite or not a number."""
    sources = [source for part in parts for source in part.sources]
    listed = ", ".join(sources[:8]) + (" …" if len(sources) > 8 else "")
    return (
        f"Step {step + 1}: the {what} is not finite, with a learning rate of {rate:.3g}, on {listed}. "
        f"Nothing was saved after that: {state.saved}. Look at these pictures and their labels; or lower the rate, or "
        "use precision=float32."
    )
