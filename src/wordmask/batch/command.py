"""`wordmask batch`: from what a person typed to a job, and what is told of it."""

from collections.abc import Generator, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path

from wordmask.bars import bar
from wordmask.batch.formats import check_formats
from wordmask.batch.inputs import Collection, Item, find_items
from wordmask.batch.job import BatchJob, BatchReport, PictureOutcome, run_job, work
from wordmask.batch.journal import BatchJournal
from wordmask.batch.processes import places, work_in_processes
from wordmask.model_choice import ModelChoice
from wordmask.settings import Settings
from wordmask.terminal import counted, say, say_notes
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
    Vocabulary.of(words)  # errors in the words come before anything is loaded
    output, model = expanded(output), model.absolute()
    items = find_items(collection, skip=output)
    check_writable(output)
    where = places(model.device, processes)
    here = not ray and len(where) == 1
    segmenter = replace(model, device=where[0].device if here else "cpu").load()
    vocabulary = Vocabulary.of(words, segmenter.model.vocabularies)
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
    try:
        report = run_job(
            job, items, segmenter=segmenter, collection=collection, run=run, watch=partial(bar, "Segmenting")
        )
    except (KeyboardInterrupt, SystemExit):
        finished = BatchJournal(job.output).read()
        done = sum(item.stem in finished for item in items)
        say(f"Stopped: {done} of {counted(len(items), 'picture')} are finished. The same command goes on there.")
        raise
    _tell(report, output)
    return report


def _tell(report: BatchReport, output: Path) -> None:
    say_notes(report.notes)
    earlier = f", {report.earlier} of them earlier" if report.earlier else ""
    say(f"{report.total - len(report.failures)} of {counted(report.total, 'picture')}{earlier} → {output}/")
    if report.failures:
        say(f"{len(report.failures)} failed, see {output / 'failed.csv'}:", err=True)
        for failure in report.failures[:REPORTED]:
            say(f"  {failure.source}: {failure.error}", err=True)
