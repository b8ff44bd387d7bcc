"""A job over a collection: what it is asked, and how its pictures go through a model to the disk."""

import errno
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from wordmask.batch.collected import Failure, write_classes, write_failures, write_report
from wordmask.batch.formats import FORMATS, check_formats, details_of, write_picture
from wordmask.batch.inputs import Collection, Holdings, Item
from wordmask.batch.journal import BatchJournal, Finished, Noted, Record, Writer
from wordmask.folders import Skips
from wordmask.image import Picture
from wordmask.model_choice import ModelChoice
from wordmask.pipeline import result_or_raise, thread_count, thread_pool, work_ahead
from wordmask.preparing import printable
from wordmask.regions import unlabelled_value
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Segmenter
from wordmask.settings import ChosenSettings, Settings
from wordmask.terminal import counted, listed, take_over_notes
from wordmask.vocabulary import Vocabulary
from wordmask.weights import fingerprint

# what the system says of a name that it takes for no result: too long, or a folder where a file should be …
OF_THE_NAME = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.EILSEQ, errno.EINVAL)


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


class BatchReport(NamedTuple):
    """How a job ended: pictures in all, those finished earlier, the failures, what was left out of the input, and what
    was assumed or left out of pictures: text → the pictures it is said of."""

    total: int
    earlier: int
    failures: list[Failure]
    skips: Skips
    notes: dict[str, list[str]]


# pictures finished earlier, pictures in all → what to call whenever one more is through
Watch = Callable[[int, int], AbstractContextManager[Callable[[], None]]]


def run_job(
    job: BatchJob,
    holdings: Holdings,
    *,
    segmenter: Segmenter,
    collection: Collection,
    run: Callable[[list[Item]], Generator[PictureOutcome]],
    watch: Watch,
    note: Callable[[str], None],
) -> BatchReport:
    """Do what is left of a job, then write the files of the whole.

    Args:
        holdings: What the collection holds.
        segmenter: With the job's model: it checks the settings, and identifies the weights.
        collection: Must not change from one start to the next, as little as the job.
        run: Does the pictures that are left, here or elsewhere.
        watch: Shows them go by.
        note: Tells what a person should know of earlier runs.

    Raises:
        ValueError: Nothing to do, settings that make no sense, or the folder is of another job; the message says what
            differs.
        OSError: Results can't be written.
    """
    items = holdings.items
    chosen = segmenter.check(job.vocabulary, job.settings)
    check_formats(job.formats, chosen.task)
    journal = BatchJournal(job.output)
    with journal.alone():
        journal.check(asked_of(job, segmenter, chosen) | collection.to_dict())
        finished = what_counts(journal, job, items, note)
        left = [item for item in items if item.stem not in finished]
        earlier, errors, notes = len(items) - len(left), {}, {}
        with watch(earlier, len(items)) as one_more, closing(run(left)) as outcomes:
            for outcome in outcomes:
                one_more()
                if outcome.error:
                    errors[outcome.stem] = outcome.error
                for text in outcome.notes:
                    notes.setdefault(text, []).append(outcome.stem)
        finished = finished_now(job, items)
        for item in items:
            if item.stem not in finished:  # whatever its worker or somebody else did to it
                errors.setdefault(item.stem, "There is no result of it. The same command makes it.")
        failures = [Failure(item.stem, item.source, errors[item.stem]) for item in items if item.stem in errors]
        records = finished.records(item.stem for item in items)
        for name in job.formats:
            FORMATS[name].collect(job.output, journal.unfinished, job.vocabulary, records)
        write_classes(job.output, journal.unfinished, job.vocabulary, unlabelled_value(len(job.vocabulary)))
        write_failures(job.output, journal.unfinished, failures)
        results = len(items) - len(failures)
        write_report(job.output, journal.unfinished, results=results, failures=failures, skips=holdings.skips)
    return BatchReport(len(items), earlier, failures, holdings.skips, notes)


def finished_now(job: BatchJob, items: list[Item]) -> Finished:
    """What is finished of the pictures as they are now."""
    # earlier versions put no pictures beside YOLO's labels
    return BatchJournal(job.output).read({item.stem: item.stamp for item in items}, unstamped="yolo" not in job.formats)


def what_counts(journal: BatchJournal, job: BatchJob, items: list[Item], note: Callable[[str], None]) -> Finished:
    """Find what is finished; remove results of pictures that have changed, or have another name now."""
    if damaged := journal.mend():
        note(
            f"{counted(len(damaged), 'damaged line')} taken out of the journal; what they said is done again: "
            f"{listed(damaged)}"
        )
    finished = finished_now(job, items)
    stamps = {item.stem: item.stamp for item in items}
    places = {(stamp.place, stamp.start) for stamp in stamps.values() if stamp}
    changed, renamed, gone = [], [], []
    for noted in finished.others:
        if noted.picture in finished:
            continue  # a later line took its place
        if stamps.get(noted.picture):
            changed.append(noted)
        elif noted.stamp and (noted.stamp.place, noted.stamp.start) in places:
            renamed.append(noted)
        else:
            gone.append(noted)
    for noted in changed + renamed:
        journal.remove(noted)
    for what, lines in (
        ("done again, as the picture changed", changed),
        ("done again under another name, as names clash otherwise", renamed),
        ("results of pictures that are not in the input", gone),
    ):
        if names := sorted({noted.picture for noted in lines}):
            note(f"{what} ({len(names)}): {listed(names)}")
    if finished.old:
        note(
            f"{counted(finished.old, 'result')} of an earlier version, which didn't note what it read; kept, as the "
            "pictures are older"
        )
    return finished


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
    files = []
    try:
        for file in write_picture(item, result, job.formats, output=job.output, unfinished=unfinished):
            files.append(file)
    except OSError as error:
        if error.errno not in OF_THE_NAME:
            raise
        for file in files:
            (job.output / file).unlink(missing_ok=True)
        return PictureOutcome(item.stem, f"Its results can't be written: {error}. Give it another name.")
    height, width = result.size
    record: Record = {
        "picture": printable(item.stem),
        "file_name": printable(item.file_name),
        "source": printable(item.source),
        "height": height,
        "width": width,
        "notes": list(result.notes),
    }
    writer.add(Noted(item.stem, files, item.stamp, item.file_name), record | details_of(result, job.formats))
    return PictureOutcome(item.stem, notes=result.notes)
