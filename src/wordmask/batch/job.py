"""A job over a collection: what it is asked, and how its pictures go through a model to the disk."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wordmask.batch.collected import write_classes, write_failures
from wordmask.batch.formats import FORMATS, check_formats, details_of, write_picture
from wordmask.batch.inputs import Item
from wordmask.batch.journal import Journal, Writer
from wordmask.pipeline import ahead, raised, thread_count, thread_pool
from wordmask.preparing import printable
from wordmask.regions import unlabelled_value
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Segmenter
from wordmask.settings import ChosenSettings, Settings
from wordmask.vocabulary import Vocabulary
from wordmask.weights import fingerprint


@dataclass(frozen=True)
class Job:
    """What any process needs to do its part.

    Args:
        output: The folder of the results.
        formats: See `FORMATS`.
        model: As `wordmask.load` takes it.
        precision: Likewise.
        vocabulary: The words.
        settings: As they were asked for.
    """

    output: Path
    formats: tuple[str, ...]
    model: str
    precision: str
    vocabulary: Vocabulary
    settings: Settings


class Outcome(NamedTuple):
    """A picture that is through, and why it failed if it did."""

    stem: str
    error: str | None = None


class Report(NamedTuple):
    """How a job ended: pictures in all, those finished earlier, and the failures: stem, source, error."""

    total: int
    earlier: int
    failures: list[tuple[str, str, str]]


Runner = Callable[[Job, list[Item]], Iterator[Outcome]]


def run_job(
    job: Job, items: list[Item], *, segmenter: Segmenter, origin: dict[str, object], run: Runner, show: Callable
) -> Report:
    """Do what is left of a job, then write the files of the whole.

    Args:
        items: See `find_items`.
        segmenter: With the job's model: it checks the settings, and identifies the weights.
        origin: Where the items come from, in plain values; must not change either.
        run: Does pictures, here or elsewhere.
        show: Called with the outcomes as they come, how many there will be, and how many there are already: shows them
            go by.

    Raises:
        ValueError: Nothing to do, settings that make no sense, or the folder is of another job; the message says what
            differs.
        OSError: Results can't be written.
    """
    chosen = segmenter.check(job.vocabulary, job.settings)
    check_formats(job.formats, chosen.task)
    journal = Journal(job.output)
    with journal.alone():
        journal.check(asked_of(job, segmenter, chosen) | origin)
        finished = journal.read()
        left = [item for item in items if item.stem not in finished]
        errors = {stem: error for stem, error in show(run(job, left), len(items), len(items) - len(left)) if error}
        failures = [(item.stem, item.source, errors[item.stem]) for item in items if item.stem in errors]
        records = journal.read().records(item.stem for item in items)
        for name in job.formats:
            FORMATS[name].collect(job.output, journal.unfinished, job.vocabulary, records)
        write_classes(job.output, journal.unfinished, job.vocabulary, unlabelled_value(len(job.vocabulary)))
        write_failures(job.output, journal.unfinished, failures)
    return Report(len(items), len(items) - len(left), failures)


def asked_of(job: Job, segmenter: Segmenter, chosen: ChosenSettings) -> dict[str, object]:
    """Everything that results depend on, in plain values; what is left to the model stays None."""
    words = [f"{', '.join(entry.names)} [{'thing' if entry.thing else 'stuff'}]" for entry in job.vocabulary]
    weights = fingerprint(segmenter.model.state_dict())
    settings = {"task": chosen.task} | chosen.to_dict()
    if "keep" in settings:
        settings["keep"] = job.settings.keep
    about = {"words": words, "model": segmenter.name, "weights": weights}
    return about | settings | {"formats": list(job.formats)}


def work(job: Job, items: Iterable[Item], segmenter: Segmenter) -> Iterator[Outcome]:
    """Take pictures through the model and onto the disk, reading and writing beside it; give each one's outcome, in
    order.

    Raises:
        OSError: Results can't be written; that a picture can't be read is its outcome.
    """
    taken: deque[Item] = deque()

    def pictures() -> Iterator[Callable]:
        for item in items:
            taken.append(item)
            yield item.read

    stream = segmenter.stream(pictures(), job.vocabulary, job.settings)
    with Journal(job.output).writer() as writer, thread_pool(thread_count()) as pool, closing(stream) as results:
        pairs = ((taken.popleft(), result) for result in results)
        for outcome in ahead(pairs, lambda pair: _keep(job, *pair, writer), pool, most=thread_count()):
            yield raised(outcome)


def _keep(job: Job, item: Item, result: Segmentation | Exception, writer: Writer) -> Outcome:
    """Write what there is to say of a picture, and note that it is finished."""
    if isinstance(result, Exception):
        kind = "" if isinstance(result, ValueError) else f"{type(result).__name__}: "
        return Outcome(item.stem, f"{kind}{result}")
    unfinished = Journal(job.output).unfinished
    files = list(write_picture(item.stem, result, job.formats, output=job.output, unfinished=unfinished))
    names = {"picture": item.stem, "file_name": item.file_name, "source": item.source}
    record = {key: printable(name) for key, name in names.items()} | dict(
        zip(("height", "width"), result.size, strict=True)
    )
    writer.add(item.stem, files, record | details_of(result, job.formats))
    return Outcome(item.stem)
