"""A job on every core or GPU of one machine."""

import multiprocessing
import os
import signal
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import Synchronized
from typing import NamedTuple

from wordmask.batch.inputs import Item
from wordmask.batch.job import BatchJob, PictureOutcome, work
from wordmask.memory import keep_freed_memory
from wordmask.pipeline import usable_cores

CORES_EACH = 4  # for a process on the CPU; more gain little by working on one picture together


class Place(NamedTuple):
    """Where a process works: the device, and on the CPU its threads."""

    device: str
    threads: int


def places(device: str, processes: int | None) -> list[Place]:
    """Divide the machine: by default a process on each GPU, or on each few cores.

    Args:
        device: As the user said it; `auto` takes all GPUs if there are any.
        processes: How many, or None.
    """
    import torch

    from wordmask.hardware import choose_device

    chosen, cores = choose_device(device), usable_cores()
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())] if device in ("auto", "cuda") else []
    if chosen.type != "cpu":
        devices = gpus or [device]
        many = processes or len(devices)
        return [Place(devices[number % len(devices)], max(1, cores // many)) for number in range(many)]
    many = processes or max(1, cores // CORES_EACH)
    # fewer if OMP_NUM_THREADS says so
    return [Place("cpu", max(1, min(cores // many, torch.get_num_threads())))] * many


def work_in_processes(job: BatchJob, items: list[Item], where: list[Place]) -> Generator[PictureOutcome]:
    """Do pictures in processes that take one after the other until none is left; yield outcomes as they come.

    Raises:
        ValueError, OSError: What a process failed with.
        ChildProcessError: One was killed, or broke down.
    """
    context = multiprocessing.get_context("spawn")
    taken = context.Value("q", 0)
    processes, readers = [], []
    try:
        for place in where[: len(items)]:
            reader, writer = context.Pipe(duplex=False)
            process = context.Process(
                target=_work_there, args=(job, items, taken, writer, place, os.getpid()), daemon=True
            )
            with _interrupts_held():
                process.start()
            writer.close()
            processes.append(process)
            readers.append(reader)
        while readers:
            ready = wait(readers)
            for reader in [one for one in readers if one in ready]:
                try:
                    outcome = reader.recv()
                except EOFError:
                    readers.remove(reader)
                    continue
                if isinstance(outcome, Exception):
                    raise outcome
                yield outcome
    finally:
        taken.value = len(items)  # they end what they have begun
        for process in processes:
            process.join()
    broken = [process for process in processes if process.exitcode]
    if broken:
        raise ChildProcessError(
            f"{len(broken)} of {len(processes)} processes ended early (exit status {broken[0].exitcode}); too little "
            "memory? What is finished is kept: the same command goes on from there. --processes says how many."
        )


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started in the block never see a Ctrl-C, which a terminal sends to all: the parent decides.

    Here it waits until the block ends.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _work_there(
    job: BatchJob, items: list[Item], taken: Synchronized, connection: Connection, place: Place, parent: int
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it wasn't held from the start
    import torch

    from wordmask.segmenter import load

    torch.set_num_threads(place.threads)
    keep_freed_memory()

    def next_items() -> Iterator[Item]:
        while os.getppid() == parent:  # nobody goes on alone
            with taken.get_lock():
                number, taken.value = taken.value, taken.value + 1
            if number >= len(items):
                return
            yield items[number]

    try:
        segmenter = load(job.model.name, device=place.device, precision=job.model.precision)
        for outcome in work(job, next_items(), segmenter):
            connection.send(outcome)
    except (ValueError, OSError) as error:
        connection.send(error)
