"""The same job on a Ray cluster. Its machines must see the input and the output under the same paths."""

import os
from collections.abc import Generator

from wordmask.batch.inputs import Item
from wordmask.batch.job import BatchJob, PictureOutcome, work
from wordmask.memory import keep_freed_memory

PICTURES_EACH = 16  # that a worker takes at a time
CORES_EACH = 4
# by a worker, of those Ray counts: workers that claim all leave none to read the list, and Ray waits for ever
CORES_CLAIMED = 0.5


class RayWorker:
    """A model on one of the cluster's machines."""

    def __init__(self, job: BatchJob, items: list[Item], threads: int, device: str):
        import torch

        from wordmask.segmenter import load

        torch.set_num_threads(threads)
        keep_freed_memory()
        self.job, self.items = job, items
        self.segmenter = load(job.model.name, device=device, precision=job.model.precision)

    def __call__(self, batch: dict) -> dict[str, list]:
        outcomes = list(work(self.job, [self.items[number] for number in batch["number"]], self.segmenter))
        return {
            "stem": [outcome.stem for outcome in outcomes],
            "error": [outcome.error or "" for outcome in outcomes],
            "notes": ["\n".join(outcome.notes) for outcome in outcomes],
        }


def work_on_ray(job: BatchJob, items: list[Item], processes: int | None) -> Generator[PictureOutcome]:
    """Do pictures on a Ray cluster: the one that `RAY_ADDRESS` names, or one on this machine for as long as it takes.

    Args:
        processes: How many workers; by default one on each GPU, or on each few cores.

    Raises:
        ValueError: Ray is not installed.
    """
    # or every worker would install the project anew under `uv run`
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # pyright: ignore[reportMissingImports]  # an extra
        from ray import data  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise ValueError("--ray needs Ray. Install it: pip install 'wordmask[ray]'.") from None
    if not items:
        return
    import torch

    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        has = ray.cluster_resources()
        gpus, cores = int(has.get("GPU", 0)), int(has.get("CPU", 1))
        many = processes or gpus or max(1, cores // CORES_EACH)
        threads = max(1, min(cores // many, torch.get_num_threads()))
        context = data.DataContext.get_current()
        context.enable_progress_bars = False
        numbers = data.from_items(
            [{"number": number} for number in range(len(items))], override_num_blocks=-(-len(items) // PICTURES_EACH)
        )
        outcomes = numbers.map_batches(
            RayWorker,
            fn_constructor_args=(job, items, threads, "cuda" if gpus else "cpu"),
            batch_size=PICTURES_EACH,
            compute=data.ActorPoolStrategy(size=many),
            num_gpus=min(1, gpus / many) if gpus else None,
            num_cpus=None if gpus else CORES_CLAIMED,
        )
        for row in outcomes.iter_rows():
            yield PictureOutcome(row["stem"], row["error"] or None, tuple(row["notes"].splitlines()))
    finally:
        if started:
            ray.shutdown()
