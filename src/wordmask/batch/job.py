"""A job over a collection: what it is asked, and how its pictures go through a model to the disk."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wordmask.batch.collected import write_classes, write_failures
from wordmask.batch.formats import FORMATS, check_formats, details_of, write_picture
from wordmask.batch.inputs import Collection, Item
from wordmask.batch.journal import BatchJournal, Record, Writer
from wordmask.image import Picture
from wordmask.model_choice import ModelChoice
from wordmask.pipeline import result_or_raise, thread_count, thread_pool, work_ahead
from wordmask.preparing import printable
from wordmask.regions import unlabelled_value
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Segmenter
from wordmask.settings import ChosenSettings, Settings
from wordmask.terminal import take_over_notes
from wordmask.vocabulary import Vocabulary
from wordmask.weights import fingerprint


@dataclass(frozen=True)
class BatchJob:
    """What any process needs to do its part.

    Args:
        output: The folder of the results.
        formats: See `FORMATS`.
        model: Each process has a device of its own.
        vocabulary: The words.
        settings: As they were asked for.
    """

    output: Path
    formats: tuple[str, ...]
    model: ModelChoice
    vocabulary: Vocabulary
    settings: Settings


class PictureOutcome(NamedTuple):
    """A picture that is through, why it failed if it did, and what was assumed or left out when it was read."""

    stem: str
    error: str | None = None
    notes: tuple[str, ...] = ()


class Failure(NamedTuple):
    """A picture that failed, where it came from, and why."""

    stem: str
    source: str
    error: str


class BatchReport(NamedTuple):
    """How a job ended: pictures in all, those finished earlier, the failures, and what was assumed or left out: text →
    the pictures it is said of."""

    total: int
    earlier: int
    failures: list[Failure]
    notes: dict[str, list[str]]


# pictures finished earlier, pictures in all → what to call whenever one more is through
Watch = Callable[[int, int], AbstractContextManager[Callable[[], None]]]


def run_job(
    job: BatchJob,
    items: list[Item],
    *,
    segmenter: Segmenter,
    collection: Collection,
    run: Callable[[list[Item]], Generator[PictureOutcome]],
    watch: Watch,
) -> BatchReport:
    """Do what is left of a job, then write the files of the whole.

    Args:
        items: What the collection holds.
        segmenter: With the job's model: it checks the settings, and identifies the weights.
        collection: Must not change from one start to the next, as little as the job.
        run: Does the pictures that are left, here or elsewhere.
        watch: Shows them go by.

    Raises:
        ValueError: Nothing to do, settings that make no sense, or the folder is of another job; the message says what
            differs.
        OSError: Results can't be written.
    """
    chosen = segmenter.check(job.vocabulary, job.settings)
    check_formats(job.formats, chosen.task)
    journal = BatchJournal(job.output)
    with journal.alone():
        journal.check(asked_of(job, segmenter, chosen) | collection.to_dict())
        finished = journal.read()
        left = [item for item in items if item.stem not in finished]
        earlier, errors, notes = len(items) - len(left), {}, {}
        with watch(earlier, len(items)) as one_more, closing(run(left)) as outcomes:
            for outcome in outcomes:
                one_more()
                if outcome.error:
                    errors[outcome.stem] = outcome.error
                for note in outcome.notes:
                    notes.setdefault(note, []).append(outcome.stem)
        failures = [Failure(item.stem, item.source, errors[item.stem]) for item in items if item.stem in errors]
        records = journal.read().records(item.stem for item in items)
        for name in job.formats:
            FORMATS[name].collect(job.output, journal.unfinished, job.vocabulary, records)
        write_classes(job.output, journal.unfinished, job.vocabulary, unlabelled_value(len(job.vocabulary)))
        write_failures(job.output, journal.unfinished, failures)
    return BatchReport(len(items), earlier, failures, notes)


def asked_of(job: BatchJob, segmenter: Segmenter, chosen: ChosenSettings) -> Record:
    """Everything that results depend on, in plain values; what is left to the model stays None."""
    words = [f"{', '.join(entry.names)} [{'thing' if entry.thing else 'stuff'}]" for entry in job.vocabulary]
    weights = fingerprint(segmenter.model.state_dict())
    settings = {"task": chosen.task} | chosen.to_dict()
    if "keep" in settings:
        settings["keep"] = job.settings.keep
    about = {"words": words, "model": segmenter.name, "weights": weights}
    return about | settings | {"formats": list(job.formats)}


def work(job: BatchJob, items: Iterable[Item], segmenter: Segmenter) -> Generator[PictureOutcome]:
    """Take pictures through the model and onto the disk, reading and writing beside it; yield each one's outcome, in
    order.

    Raises:
        OSError: Results can't be written; that a picture can't be read is its outcome.
    """
    taken: deque[Item] = deque()

    def pictures() -> Iterator[Callable[[], Picture]]:
        for item in items:
            taken.append(item)
            yield item.read

    take_over_notes()
    stream = segmenter.stream(pictures(), job.vocabulary, job.settings)
    with BatchJournal(job.output).writer() as writer, thread_pool(thread_count()) as pool, closing(stream) as results:
        pairs = ((taken.popleft(), result) for result in results)
        for outcome in work_ahead(pairs, lambda pair: _keep(job, *pair, writer), pool, most=thread_count()):
            yield result_or_raise(outcome)


def _keep(job: BatchJob, item: Item, result: Segmentation | Exception, writer: Writer) -> PictureOutcome:
    """Write what there is to say of a picture, and note that it is finished."""
    if isinstance(result, Exception):
        kind = "" if isinstance(result, ValueError) else f"{type(result).__name__}: "
        return PictureOutcome(item.stem, f"{kind}{result}")
    unfinished = BatchJournal(job.output).unfinished
    files = list(write_picture(item.stem, result, job.formats, output=job.output, unfinished=unfinished))
    height, width = result.size
    record: Record = {
        "picture": printable(item.stem),
        "file_name": printable(item.file_name),
        "source": printable(item.source),
        "height": height,
        "width": width,
        "notes": list(result.notes),
    }
    writer.add(item.stem, files, record | details_of(result, job.formats))
    return PictureOutcome(item.stem, notes=result.notes)
