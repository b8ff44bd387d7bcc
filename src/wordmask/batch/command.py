"""`wordmask batch`: from what a person typed to a job, and what is told of it."""

from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console

from wordmask.batch.formats import check_formats
from wordmask.batch.inputs import find_items
from wordmask.batch.job import Job, Report, run_job, work
from wordmask.batch.journal import Journal
from wordmask.batch.processes import places, work_in_processes
from wordmask.batch.progress import with_bar
from wordmask.segmenter import load
from wordmask.settings import Settings
from wordmask.vocabulary import Vocabulary
from wordmask.writing import check_writable

REPORTED = 5  # failures that are told on the terminal; the file has all


def label_collection(
    source: str,
    output: Path,
    words: Iterable[str] | Path | str,
    *,
    formats: list[str],
    settings: Settings,
    say: Callable,
    every: float,
    processes: int | None,
    ray: bool,
    **place: str,
) -> Report:
    """Label a collection, or what is left of it, and say how that went.

    Args:
        source: See `find_items`.
        words: See `Vocabulary.of`.
        say: Prints a line; on standard error with `err`.
        place: `model`, `device` and `precision`, as `load` takes them.

    Raises:
        ValueError: Nothing to do, settings that make no sense, or the folder has results of another job.
        OSError: Results can't be written, or a process was killed.
    """
    Vocabulary.of(words)  # errors in the words come before anything is loaded
    items = find_items(source, skip=output, every=every)
    check_writable(output)
    model = str(Path(place["model"]).resolve()) if Path(place["model"]).exists() else place["model"]
    where = places(place["device"], processes)
    elsewhere = ray or len(where) > 1
    with Console(stderr=True).status(f"Loading {place['model']} …"):
        segmenter = load(model, device="cpu" if elsewhere else where[0].device, precision=place["precision"])
    vocabulary = Vocabulary.of(words, segmenter.model.vocabularies)
    task = segmenter.check(vocabulary, settings).task
    job = Job(output.resolve(), check_formats(formats, task), model, place["precision"], vocabulary, settings)

    def run(job: Job, left: list):
        if ray:
            from wordmask.batch.on_ray import work_on_ray

            return work_on_ray(job, left, processes)
        return work_in_processes(job, left, where) if elsewhere else work(job, left, segmenter)

    origin = {"input": str(Path(source).resolve()), "every": every}
    say(f"{_pictures(len(items))} · {len(vocabulary)} words → {', '.join(job.formats)} in {output}/", err=True)
    try:
        report = run_job(job, items, segmenter=segmenter, origin=origin, run=run, show=with_bar)
    except (KeyboardInterrupt, SystemExit):
        finished = Journal(job.output).read()
        done = sum(item.stem in finished for item in items)
        say(f"Stopped: {done} of {_pictures(len(items))} are finished. The same command goes on there.")
        raise
    _tell(report, output, say)
    return report


def _tell(report: Report, output: Path, say: Callable) -> None:
    earlier = f", {report.earlier} of them earlier" if report.earlier else ""
    say(f"{report.total - len(report.failures)} of {_pictures(report.total)}{earlier} → {output}/")
    if report.failures:
        say(f"{len(report.failures)} failed, see {output / 'failed.csv'}:", err=True)
        for _, source, error in report.failures[:REPORTED]:
            say(f"  {source}: {error}", err=True)


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"
