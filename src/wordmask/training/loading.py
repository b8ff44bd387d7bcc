"""The division of the work: which pictures a process takes at which step, prepared ahead by other processes."""

from collections.abc import Callable, Iterator

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from wordmask.training.recipe import Batch, Example, Recipe, TrainingSettings
from wordmask.training.signals import leave_signals


class Share(Sampler[list[int]]):
    """Which examples a process takes: part p of step s, of P parts and N processes, has the numbers of piece p·N + rank
    of batch s."""

    def __init__(self, rank: int, count: int, parts: int, batch: int, span: range):
        self.rank, self.count, self.parts, self.batch, self.span = rank, count, parts, batch, span

    def __len__(self) -> int:
        return len(self.span) * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        size = self.batch // (self.parts * self.count)
        for step in self.span:
            for part in range(self.parts):
                start = step * self.batch + (part * self.count + self.rank) * size
                yield list(range(start, start + size))


def parts_per_step(settings: TrainingSettings, count: int, *, divisible: bool) -> int:
    """How many parts each process takes one after the other, so that the batch is the recipe's on any number of GPUs.

    Args:
        count: Of processes.
        divisible: Whether the loss of a part doesn't depend on the other parts.

    Raises:
        ValueError: The batch can't be divided so.
    """
    at_once = settings.at_once or settings.batch // count
    if at_once < 1 or settings.batch % (at_once * count):
        raise ValueError(
            f"A batch of {settings.batch} pictures can't be divided into equal parts of {at_once} for {count} "
            f"process{'es' if count > 1 else ''}. Choose batch and at_once so that batch is a multiple of at_once × "
            "processes."
        )
    parts = settings.batch // (at_once * count)
    if parts > 1 and not divisible:
        raise ValueError(
            "This loss compares all pictures of a batch with each other: it can't be divided. Leave at_once out."
        )
    return parts


class PartsAhead:
    """The parts of a `Share` in their order, prepared ahead by workers; use it in a `with` block, which ends them."""

    def __init__(self, recipe: Recipe, share: Share, *, workers: int, pin: bool):
        self.loader = DataLoader(
            Careful(recipe.examples),
            batch_sampler=share,
            collate_fn=CarefulCollate(recipe.collate),
            num_workers=workers,
            worker_init_fn=leave_signals,
            pin_memory=pin,
        )

    def __enter__(self) -> "PartsAhead":
        self.parts = iter(self.loader)
        return self

    def __exit__(self, *_: object) -> None:
        # they heed no signal: without this a failed training would wait for them for ever
        shut_down = getattr(self.parts, "_shutdown_workers", None)
        if shut_down is not None:
            shut_down()

    def take(self, count: int, device: torch.device) -> list[Batch]:
        """The next parts, on a device.

        Raises:
            ValueError: A picture or its label is bad.
        """
        taken = [next(self.parts) for _ in range(count)]
        for part in taken:
            if isinstance(part, ValueError):
                raise part
        return [part.to(device) for part in taken]


class Careful(Dataset[Example | ValueError]):
    """Returns a bad example's error in its place: raised in a worker, it would reach the user as a traceback."""

    def __init__(self, examples: Dataset[Example]):
        self.examples = examples

    def __getitem__(self, number: int) -> Example | ValueError:
        try:
            return self.examples[number]
        except ValueError as error:
            return error


class CarefulCollate:
    """Collates examples; if one is an error, returns that."""

    def __init__(self, collate: Callable[[list[Example]], Batch]):
        self.collate = collate

    def __call__(self, examples: list[Example | ValueError]) -> Batch | ValueError:
        errors = [example for example in examples if isinstance(example, ValueError)]
        if errors:
            return errors[0]
        return self.collate([example for example in examples if not isinstance(example, ValueError)])
