"""The one training loop, for every model; start it with `wordmask train`, or on several GPUs with
`torchrun -m wordmask train`."""

import os
import time
from contextlib import nullcontext
from datetime import timedelta
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from wordmask.hardware import choose_device
from wordmask.training.journal import Checkpoint, Journal, StopSignal
from wordmask.training.optimiser import build_optimiser
from wordmask.training.parts import PartsAhead, Share, parts_per_step
from wordmask.training.recipe import Batch, Recipe, Settings

MIX = 1_000_003  # a prime, so that seed and step give different streams
PATIENCE = timedelta(hours=12)  # how long processes wait for the first one, which validates alone


class Outcome(NamedTuple):
    """The scores of the last validation, and whether the last step was done."""

    scores: dict[str, float]
    finished: bool


def train(recipe: Recipe, settings: Settings) -> Outcome:
    """Train until the last step, or until SIGTERM or Ctrl-C; a training found in the folder goes on where it was saved.

    Raises:
        ValueError: The batch can't be divided, the folder holds another training, a picture is bad, or a loss or
            gradient is not finite.
    """
    rank, count, device = join_processes(settings.device)
    parts = parts_per_step(settings, count, divisible=recipe.divisible)
    model = recipe.model.to(device)
    if device.type == "cuda" and count > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    optimiser = build_optimiser(recipe, model)
    trained = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    scaler = torch.amp.GradScaler(device.type, enabled=settings.precision == "float16")
    checkpoint = Checkpoint(
        settings, model, optimiser, scaler, fingerprint=recipe.fingerprint, save=recipe.save, writes=rank == 0
    )
    first = agree_on_first(checkpoint.resume(), count, device)
    objective = Objective(model.train(), recipe)
    if count > 1:
        objective = DistributedDataParallel(objective, device_ids=[device] if device.type == "cuda" else None)
    share = Share(rank, count, parts, settings.batch, range(first, settings.steps))
    ahead = PartsAhead(recipe, share, workers=settings.workers, pin=device.type == "cuda")
    precision = {"bfloat16": torch.bfloat16, "float16": torch.float16}.get(settings.precision)
    stopped = False

    with StopSignal() as stop, Journal(settings, first, quiet=rank > 0) as journal, ahead:
        if checkpoint.validation_due:
            validate(recipe, model, checkpoint, journal, step=first)
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
                with objective.no_sync() if number < parts - 1 and count > 1 else nullcontext():
                    with torch.autocast(device.type, precision, enabled=precision is not None):
                        part_loss = objective(part, whole) / parts
                    if not part_loss.isfinite():
                        raise ValueError(not_finite("loss", step, [part], settings.rate * factor, checkpoint))
                    scaler.scale(part_loss).backward()
                loss += part_loss.detach()
            scaler.unscale_(optimiser)
            norm = nn.utils.clip_grad_norm_(trained, recipe.gradient_norm or float("inf"))
            # in float16 the scaler leaves such a step out, and goes on
            if not scaler.is_enabled() and not norm.isfinite():
                raise ValueError(not_finite("gradient", step, whole, settings.rate * factor, checkpoint))
            scaler.step(optimiser)
            scaler.update()
            optimiser.zero_grad()
            loss, stopped = agree(loss, stop.received, count)
            done = step + 1
            journal.write(done, loss, settings.rate * factor, settings.batch / (time.perf_counter() - started))
            due = done % settings.validate_every == 0 or done == settings.steps
            if due or stopped or done % settings.save_every == 0:
                journal.flush()
                checkpoint.write(done, validation_due=due)
            if stopped and done < settings.steps:
                journal.say(f"Stopped after step {done} of {settings.steps}; the same command goes on from there.")
                break
            if due:
                validate(recipe, model, checkpoint, journal, step=done)
    if count > 1:
        distributed.barrier()
        distributed.destroy_process_group()
    return Outcome(checkpoint.scores, finished=not stopped or checkpoint.step == settings.steps)


@torch.no_grad()
def validate(recipe: Recipe, model: nn.Module, checkpoint: Checkpoint, journal: Journal, *, step: int) -> None:
    """Score the model, in the first process; note the scores, and keep the weights if they are the best."""
    if checkpoint.writes:
        scores = recipe.validate(model.eval(), checkpoint.folder / "pictures" / f"{step:06}")
        journal.write_scores(step, scores)
        checkpoint.keep_best(scores)
        checkpoint.write(step, validation_due=False)
    model.train()


class Objective(nn.Module):
    """Model and loss in one module, so that gradients are averaged over processes while they are computed."""

    def __init__(self, model: nn.Module, recipe: Recipe):
        super().__init__()
        self.model = model
        self.loss = recipe.loss

    def forward(self, part: Batch, whole: list[Batch]) -> Tensor:
        return self.loss(self.model, part, whole)


def join_processes(device: str) -> tuple[int, int, torch.device]:
    """Join the other processes that torchrun started; return the rank of this one, their number, and its device."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        return 0, 1, choose_device(device)
    if torch.cuda.is_available() and device in ("auto", "cuda"):
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        chosen = torch.device("cuda", torch.cuda.current_device())
    else:
        chosen = choose_device(device)
    distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=PATIENCE)
    return distributed.get_rank(), count, chosen


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


def agree(loss: Tensor, stop: bool, count: int) -> tuple[float, bool]:
    """The mean loss, and whether any process was asked to stop: all of them leave after the same step."""
    if count > 1:
        both = torch.stack([loss.float(), loss.new_tensor(float(stop)).float()])
        distributed.all_reduce(both)
        loss, stop = both[0] / count, bool(both[1] > 0)
    return float(loss), stop


def not_finite(what: str, step: int, parts: list[Batch], rate: float, checkpoint: Checkpoint) -> str:
    """What to say when a loss or a gradient is infinite or not a number."""
    sources = [source for part in parts for source in part.sources]
    listed = ", ".join(sources[:8]) + (" …" if len(sources) > 8 else "")
    return (
        f"Step {step + 1}: the {what} is not finite, with a learning rate of {rate:.3g}, on {listed}. "
        "Nothing was saved after that: "
        f"{checkpoint.saved}. Look at these pictures and their labels; or lower the rate, or use precision=float32."
    )
