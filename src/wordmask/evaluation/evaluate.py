"""Measure a model on splits: every picture once, on as many processes as there are, from where an earlier start was
stopped."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rich.console import Console

from wordmask import fingerprints
from wordmask.data.labelled import DataSet, LabelledPicture, data_fingerprint
from wordmask.data.reading import AS_IT_SAYS, FolderReading
from wordmask.data.splits import SPLITS, Split, data_root, find_split, open_split
from wordmask.evaluation.outcome import conditions_of, outcome_of
from wordmask.evaluation.own_folder import OwnSplit, Tell, is_own_folder, open_own, silent, spread
from wordmask.evaluation.protocols import Protocol, protocol_of, shrink
from wordmask.evaluation.report import Conditions, EvaluationReport
from wordmask.evaluation.scoring import Scores
from wordmask.evaluation.store import ScoreStore, unnamed
from wordmask.hardware import Precision
from wordmask.processes import Processes
from wordmask.segmenter import Segmenter, load
from wordmask.settings import Settings, Task, kept_of
from wordmask.surroundings import precision_kept
from wordmask.vocabulary import Synonyms, Vocabulary
from wordmask.writing import JsonObject, cache_folder, expanded, undisturbed

SAVED_EVERY = 20.0  # seconds
AHEAD = 2  # pictures that are read while the model looks at one

# title, pictures done, pictures in all → call for each
Watch = Callable[[str, int, int], AbstractContextManager[Callable[[], None]]]


@dataclass(frozen=True)
class Choices:
    """What differs from the paper's protocol; None: nothing does.

    Args:
        keep: ERR-Seg's K.
        vocabulary: Other names for the split's classes, in its order, as `Vocabulary.of` reads them.
        synonyms: `first`, `mean` or `each`.
        size: Pixels: the side of ERR-Seg's square input, the shorter edge of EOV-Seg's.
        shrink: Pixels: the shorter side that larger pictures, and their labels, are resized to before anything else.
        overlap: See `Segmenter`.
        most: See `Segmenter`.
    """

    keep: int | None = None
    vocabulary: str | None = None
    synonyms: Synonyms | None = None
    size: int | None = None
    shrink: int | None = None
    overlap: float | None = None
    most: int | None = None

    @property
    def of_protocol(self) -> JsonObject:
        return {name: getattr(self, name) for name in ("keep", "vocabulary", "synonyms", "shrink")}

    @property
    def made(self) -> JsonObject:
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class EvaluationJob:
    """One split, ready to be measured: its pictures, the words, and what is asked of the model; `contents` is a
    fingerprint of those, where one is known."""

    name: str
    data: DataSet
    places: list[int]
    protocol: Protocol
    vocabulary: Vocabulary
    tasks: tuple[Task, ...]
    settings: Settings
    contents: str = ""
    own: Split | None = None

    @property
    def split(self) -> Split:
        """What is measured on: a folder of one's own, or a row of the table."""
        return self.own or SPLITS[self.name]

    def blank(self) -> Scores:
        """Scores that have counted nothing."""
        return Scores(self.tasks, self.vocabulary, self.split.folded)

    def read(self, place: int) -> LabelledPicture:
        """A picture as the protocol wants it."""
        labelled = self.data[place]
        return shrink(labelled, self.protocol.shrink) if self.protocol.shrink else labelled

    def identity(self) -> JsonObject:
        """Everything of it that the figures depend on, in plain values."""
        if self.contents:
            read = fingerprints.of_values(self.contents, self.places)
        else:
            read = data_fingerprint(self.data, self.places)
        return {
            "split": self.name,
            "pictures and labels": read,
            "words": [entry.names for entry in self.vocabulary],
            "tasks": self.tasks,
            "settings": _made(self.settings),
        }


@contextmanager
def unwatched(title: str, done: int, total: int) -> Iterator[Callable[[], None]]:
    """Show nothing."""

    def count() -> None:
        pass

    yield count


@precision_kept()
def evaluate(
    model: str | Path | Segmenter,
    splits: Sequence[str],
    *,
    data: str | Path | None = None,
    pictures: int | None = None,
    partial: bool = False,
    choices: Choices = Choices(),
    device: str = "auto",
    precision: Precision = "auto",
    work: str | Path | None = None,
    watch: Watch = unwatched,
    reading: FolderReading = AS_IT_SAYS,
    tell: Tell = silent,
) -> EvaluationReport | None:
    """Measure a model on splits by its paper's protocol.

    Under torchrun the processes share the pictures, and the figures are those of one, as long as all compute with as
    many threads.

    Args:
        model: What `wordmask.load` takes, or a loaded one, on whose device it runs.
        splits: Rows of `wordmask.data.splits.SPLITS`, and folders of one's own.
        data: The folder that data sets are in; see `data_root`.
        pictures: Only so many, the first that are whole; of a folder of one's own spread over all.
        partial: Take what is there of splits that are not whole.
        choices: What differs from the protocol.
        work: Where counts are kept until all is done; `evaluations` in the cache folder by default.
        watch: Shows progress.
        reading, tell: How folders of one's own are to be read; is called with what is in each of them.

    Returns:
        The report, in the first process; None in the others.

    Raises:
        ValueError: No such split or model; a split is not there or not whole, which is said before anything runs;
            settings that make no sense; a picture that can't be read.
    """
    names, folders = _told_apart(splits, reading)
    opened = _open_all(names, data_root(data), partial=partial or pictures is not None)
    own = [open_own(name, replace(reading, partial=partial or reading.partial), watch, tell) for name in folders]
    processes = Processes.join()
    device = processes.device(device)
    segmenter = model if isinstance(model, Segmenter) else load(model, device=device, precision=precision)
    jobs = _plan_all(segmenter, opened, own, pictures, choices)
    conditions = conditions_of(segmenter, processes.count)
    same = _same(conditions) | {"input": _input_of(segmenter, choices), "code": _code_of(segmenter)}
    folder, outcomes = _work_folder(work), []
    stores = [ScoreStore(folder, job.identity() | same, processes.rank) for job in jobs]
    if processes.first:
        tell_of_others(folder, jobs, stores)
    for job, store in zip(jobs, stores, strict=True):
        scores = measure(segmenter, job, store, processes=processes, watch=watch)
        if scores is not None:
            outcomes.append(outcome_of(segmenter, job, scores, choices.made))
    processes.leave()
    if processes.first:  # what all of them kept
        for store in stores:
            store.forget()
    return EvaluationReport(conditions, tuple(outcomes)) if processes.first else None


def measure(
    segmenter: Segmenter, job: EvaluationJob, store: ScoreStore, *, processes: Processes, watch: Watch
) -> Scores | None:
    """Count what is left of a split's pictures; return the scores over all of them, in the first process."""
    scores = store.load(job.blank) if processes.first else job.blank()
    done = set(processes.from_first(scores.pictures))
    left = [place for place in job.places if place not in done]
    segmenter.encode_words(job.vocabulary, job.settings.synonyms)
    saved = time.monotonic()
    try:
        with watch(job.split.title, len(done), len(job.places)) as count:
            for place, labelled in _ahead(job.read, left[processes.rank :: processes.count]):
                started = time.perf_counter()
                found = segmenter.readings(labelled.rgb, job.vocabulary, job.tasks, job.settings)
                seconds, one = time.perf_counter() - started, job.blank()
                one.update(place, found, labelled, seconds=seconds)
                with undisturbed():
                    scores.merge(one)
                if time.monotonic() - saved > SAVED_EVERY:
                    store.save(scores)
                    saved = time.monotonic()
                for _ in range(processes.count):  # the others are as far, more or less
                    count()
    finally:
        store.save(scores)
    states = processes.gather(scores.state())
    if not processes.first:
        return None
    whole = job.blank()
    for state in states:
        whole.merge(job.blank().restore(state))
    return whole


def tell_of_others(folder: Path, jobs: list[EvaluationJob], stores: list[ScoreStore]) -> None:
    """Say on the terminal which counts of earlier starts can't be used, and why."""
    notes = []
    for job, store in zip(jobs, stores, strict=True):
        for other, changed in store.others():
            notes.append(
                f"A stopped evaluation of {job.split.title} can't go on, as {' and '.join(changed)} changed: it "
                f"begins anew. Remove {str(other)!r} if you don't go back."
            )
    for other in unnamed(folder):
        notes.append(f"{str(other)!r} is of a version that noted less, and can't be used: remove it.")
    for note in notes:
        Console(stderr=True).print(f"note: {note}", soft_wrap=True)


def _told_apart(splits: Sequence[str], reading: FolderReading) -> tuple[list[str], list[str]]:
    """The rows of the table, and the folders, among what is to be measured on; each once."""
    folders = list(dict.fromkeys(name for name in splits if is_own_folder(name)))
    if replace(reading, partial=False) != AS_IT_SAYS and not folders:
        raise ValueError("How to read a folder of one's own was given, but none to measure on. Leave it out.")
    return list(dict.fromkeys(find_split(name) for name in splits if name not in folders)), folders


def _open_all(names: Sequence[str], root: Path, *, partial: bool) -> dict[str, tuple[DataSet, list[int]]]:
    """Open every split, and say of all at once what is wrong."""
    opened, errors = {}, []
    for name in names:
        try:
            opened[name] = open_split(name, root, partial=partial)
        except ValueError as error:
            errors.append(str(error))
    if errors:
        raise ValueError("\n".join(errors))
    return opened


def _plan_all(
    segmenter: Segmenter,
    opened: Mapping[str, tuple[DataSet, list[int]]],
    own: Sequence[OwnSplit],
    pictures: int | None,
    choices: Choices,
) -> list[EvaluationJob]:
    return [
        *(_plan(segmenter, name, data, places[:pictures], choices) for name, (data, places) in opened.items()),
        *(_plan_own(segmenter, one, spread(one.places, pictures), choices) for one in own),
    ]


def _plan(segmenter: Segmenter, name: str, data: DataSet, places: list[int], choices: Choices) -> EvaluationJob:
    split = SPLITS[name]
    protocol = protocol_of(segmenter.model.family, name).changed(choices.of_protocol)
    vocabulary = protocol.read_vocabulary()
    expected = len(data.vocabulary)
    if len(vocabulary) != expected and (split.folded is None or len(vocabulary) <= split.folded):
        raise ValueError(_other_number(split, expected, protocol, vocabulary))
    job = EvaluationJob(name, data, places, protocol, vocabulary, (), Settings())
    return _asked(segmenter, job, choices)


def _plan_own(segmenter: Segmenter, own: OwnSplit, places: list[int], choices: Choices) -> EvaluationJob:
    """A folder of one's own: no paper says how; its own names, and the model's own choices."""
    protocol = Protocol(own.split.title, note="one's own folder, by its own names").changed(choices.of_protocol)
    vocabulary = own.data.vocabulary if choices.vocabulary is None else protocol.read_vocabulary()
    if len(vocabulary) != len(own.data.vocabulary):
        raise ValueError(_other_number(own.split, len(own.data.vocabulary), protocol, vocabulary))
    job = EvaluationJob(
        own.split.title, own.data, places, protocol, vocabulary, (), Settings(), own.fingerprint, own.split
    )
    return _asked(segmenter, job, choices)


def _other_number(split: Split, expected: int, protocol: Protocol, vocabulary: Vocabulary) -> str:
    return (
        f"{split.title} has {expected} classes; the vocabulary {protocol.vocabulary!r} has {len(vocabulary)}. Name all."
    )


def _asked(segmenter: Segmenter, job: EvaluationJob, choices: Choices) -> EvaluationJob:
    """The same with what is asked of the model."""
    split, vocabulary, model = job.split, job.vocabulary, segmenter.model
    tasks: tuple[Task, ...] = tuple(task for task in model.tasks if task in split.tasks)
    protocol = replace(job.protocol, synonyms=job.protocol.synonyms or model.synonyms)
    if choices.keep is not None and not model.keep_steps:
        raise ValueError(f"keep says nothing to {segmenter.name or model.family}. Leave it out.")
    for setting, task in (("overlap", "panoptic"), ("most", "instance")):
        if getattr(choices, setting) is not None and task not in tasks:
            raise ValueError(
                f"{setting} says nothing to {segmenter.name or model.family} on {split.title}. Leave it out."
            )
    if model.keep_steps:
        kept = protocol.keep or kept_of(model.keep_steps, len(vocabulary))
        protocol = replace(protocol, keep=min(kept, len(vocabulary)))
    settings = Settings(
        keep=protocol.keep if model.keep_steps else None,
        synonyms=protocol.synonyms,
        overlap=choices.overlap,
        most=choices.most,
        size=choices.size,
    )
    for task in tasks:
        segmenter.check(vocabulary, settings.for_task(task))
    return replace(job, protocol=protocol, tasks=tasks, settings=settings)


def _input_of(segmenter: Segmenter, choices: Choices) -> JsonObject:
    return asdict(Settings(size=choices.size).seen_by(segmenter.model))


def _code_of(segmenter: Segmenter) -> str:
    return fingerprints.of_code(fingerprints.files_that_define([segmenter, *segmenter.model.modules()]))


def _work_folder(work: str | Path | None) -> Path:
    return expanded(work) if work is not None else cache_folder() / "evaluations"


def _made(settings: Settings) -> JsonObject:
    """What was decided of settings, in plain values; the size stands beside them, as what the model sees."""
    values = {name: getattr(settings, name) for name in ("synonyms", "keep", "overlap", "most")}
    return {name: value for name, value in values.items() if value is not None}


def _same(conditions: Conditions) -> JsonObject:
    """The conditions that figures depend on, in plain values: not when it was, nor on how many processes; nor the
    commit, as the code has a fingerprint."""
    return {name: value for name, value in asdict(conditions).items() if name not in ("date", "processes", "commit")}


def _ahead(read: Callable[[int], LabelledPicture], places: Sequence[int]) -> Iterator[tuple[int, LabelledPicture]]:
    """Read pictures in their order, the next ones while the caller works."""
    with ThreadPoolExecutor(1) as pool:
        waiting = [pool.submit(read, place) for place in places[:AHEAD]]
        for number, place in enumerate(places):
            labelled = waiting.pop(0).result()
            if number + AHEAD < len(places):
                waiting.append(pool.submit(read, places[number + AHEAD]))
            yield place, labelled
