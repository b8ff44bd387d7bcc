"""`wordmask batch`: from what a person typed to a job, and what is told of it."""

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from wordmask.bars import bar
from wordmask.batch.formats import check_formats
from wordmask.batch.inputs import Collection, Holdings, Item, look_through
from wordmask.batch.job import BatchJob, BatchReport, PictureOutcome, finished_now, run_job, work
from wordmask.batch.processes import places, work_in_processes
from wordmask.model_choice import ModelChoice
from wordmask.settings import Settings
from wordmask.terminal import counted, on_one_line, say, say_doubt, say_notes
from wordmask.vocabulary import Vocabulary
from wordmask.writing import check_writable, expanded

REPORTED = 5  # failures that are told on the terminal; the file has all


def label_collection(
    collection: Collection,
    output: Path,
    words: Iterable[str] | Path | str,
    *,
    formats: Iterable[str],
    settings: Settings,
    model: ModelChoice,
    processes: int | None = None,
    ray: bool = False,
) -> BatchReport:
    """Label a collection, or what is left of it, and say how that went.

    Args:
        words: See `Vocabulary.of`.
        formats: See `wordmask.batch.formats.FORMATS`.
        processes: How many do the work; by default one on each GPU, or on each few cores.
        ray: Whether they are a Ray cluster's.

    Raises:
        ValueError: Nothing to do, settings that make no sense, or the folder has results of another job.
        OSError: Results can't be written, or a process was killed.
    """
    asked = Vocabulary.read(words)  # errors in the words come before anything is loaded
    output, model = expanded(output), model.absolute()
    holdings = _look_through(collection, output)
    items = holdings.items
    where = places(model.device, processes)
    here = not ray and len(where) == 1
    segmenter = replace(model, device=where[0].device if here else "cpu").load()
    vocabulary = asked.with_names_for(words, segmenter.model.vocabularies)
    task = segmenter.check(vocabulary, settings).task
    job = BatchJob(output.resolve(), check_formats(formats, task), model, vocabulary, settings)

    def run(left: list[Item]) -> Generator[PictureOutcome]:
        if ray:
            from wordmask.batch.on_ray import work_on_ray

            return work_on_ray(job, left, processes)
        return work(job, left, segmenter) if here else work_in_processes(job, left, where)

    say(
        f"{counted(len(items), 'picture')} · {counted(len(vocabulary), 'word')} → "
        f"{', '.join(job.formats)} in {output}/",
        err=True,
    )
    say_doubt(vocabulary)
    with _saying_where_it_stopped(job, items):
        report = run_job(
            job,
            holdings,
            segmenter=segmenter,
            collection=collection,
            run=run,
            watch=partial(bar, "Segmenting"),
            note=lambda line: say(f"note: {on_one_line(line)}.", err=True),
        )
    _tell(report, output)
    return report


@contextmanager
def _saying_where_it_stopped(job: BatchJob, items: list[Item]) -> Iterator[None]:
    try:
        yield
    except (KeyboardInterrupt, SystemExit, OSError):
        finished = finished_now(job, items)
        done = sum(item.stem in finished for item in items)
        say(f"Stopped: {done} of {counted(len(items), 'picture')} are finished. The same command goes on there.")
        raise


def _look_through(collection: Collection, output: Path) -> Holdings:
    """List the input with the output folder there already, so that the first run lists what a later one does."""
    made = not output.exists()
    check_writable(output)
    try:
        return look_through(collection, skip=output)
    except ValueError:
        if made:
            output.rmdir()
        raise


def _tell(report: BatchReport, output: Path) -> None:
    say_notes(report.notes)
    earlier = f", {report.earlier} of them earlier" if report.earlier else ""
    say(f"{report.total - len(report.failures)} of {counted(report.total, 'picture')}{earlier} → {output}/")
    if report.failures:
        say(f"{len(report.failures)} failed, see {output / 'failed.csv'}:", err=True)
        for failure in report.failures[:REPORTED]:
            named = failure.source in failure.error
            say(f"  {on_one_line(failure.error if named else f'{failure.source}: {failure.error}')}", err=True)
    if report.skips:
        say(f"{len(report.skips)} left out, see {output / 'report.json'}:", err=True)
        for line in report.skips.lines():
            say(f"  {on_one_line(line)}", err=True)
