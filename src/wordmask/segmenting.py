"""`wordmask segment`: pictures through a model and onto the disk, and what is told of them."""

from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from wordmask.bars import bar
from wordmask.model_choice import ModelChoice
from wordmask.pipeline import thread_count, thread_pool, work_ahead
from wordmask.regions import LEAST_SHOWN, Region
from wordmask.segmentation import Segmentation
from wordmask.settings import Settings
from wordmask.sources import Inputs, Source, find_inputs
from wordmask.terminal import announce, on_one_line, say, say_notes, take_over_notes
from wordmask.vocabulary import Vocabulary
from wordmask.writing import check_writable, expanded, undisturbed

REPORTED = 3  # up to so many pictures, each gets lines of its own; above, a progress bar
NAMES_SHOWN = 8  # of what was found in a picture
STUFF_SHOWN = 5  # of the words that are left out
OF_THE_PICTURE = (ValueError, OSError, MemoryError, RuntimeError)  # torch runs out of memory with the last


class Saved(NamedTuple):
    """What was found in a picture, and the files that say it."""

    result: Segmentation
    files: list[Path]


def segment_pictures(
    pictures: list[str], words: list[str] | Path | str, output: Path, *, model: ModelChoice, settings: Settings
) -> bool:
    """Segment pictures, save what is found, and tell it.

    Args:
        pictures: Files, folders or globs.
        words: As `Vocabulary.of` reads them.
        output: Folder for the results.

    Returns:
        Whether every picture could be segmented.

    Raises:
        ValueError: There is no picture; words, settings or a model that make no sense; a folder that can't be written
            to. Nothing is segmented then.
    """
    output = expanded(output)
    asked = Vocabulary.read(words)  # errors in the words come before anything is loaded
    inputs = find_inputs(pictures, skip=output)
    sources = inputs.sources
    check_writable(output)
    announce(len(sources), asked)
    segmenter = model.load()
    asked = asked.with_names_for(words, segmenter.model.vocabularies)
    if segmenter.check(asked, settings).task == "instance":
        name_stuff(asked)
    segmenter.encode_words(asked, settings.synonyms, settings.background)
    results = segmenter.stream((partial(_picture_of, source) for source in sources), asked, settings)
    return _save_and_tell(inputs, results, output)


def _picture_of(source: Source) -> Path:
    if source.problem:
        raise ValueError(source.problem)
    return source.path


def _save_and_tell(inputs: Inputs, results: Generator[Segmentation | Exception], output: Path) -> bool:
    sources = inputs.sources
    done: list[Path] = []
    failures: dict[Path, Exception] = {}
    notes: dict[str, list[str]] = {}
    take_over_notes()
    few = len(sources) <= REPORTED
    try:
        with saving(results, sources, output, done) as saved, bar("Segmenting", 0, len(sources), shown=not few) as step:
            for source, outcome in zip(sources, saved, strict=True):
                step()
                if isinstance(outcome, OF_THE_PICTURE):
                    failures[source.path] = outcome
                elif isinstance(outcome, Exception):
                    raise outcome
                else:
                    for note in outcome.result.notes:
                        notes.setdefault(note, []).append(str(source.path))
                    if few:
                        report(source, outcome)
    finally:
        say_notes(notes)
        conclude(len(sources), len(done), failures, output)
        for line in inputs.skips.lines():
            say(f"left out: {on_one_line(line)}", err=True)
    return not failures


@contextmanager
def saving(
    results: Generator[Segmentation | Exception], sources: list[Source], output: Path, done: list[Path]
) -> Iterator[Iterator[Saved | Exception]]:
    """Save results in threads, while the next are made.

    What is begun when the block is left, by Ctrl-C too, is written whole, and counted.

    Args:
        done: The stem of every picture that was saved is added.

    Yields:
        For each picture what was saved, or its error.
    """

    def save(pair: tuple[Source, Segmentation | Exception]) -> Saved:
        source, result = pair
        if isinstance(result, Exception):
            raise result
        files = result.save(output / source.stem)
        done.append(source.stem)
        return Saved(result, files)

    with ExitStack() as leaving:
        pool = leaving.enter_context(thread_pool(thread_count()))
        leaving.callback(results.close)
        try:
            yield work_ahead(zip(sources, results, strict=True), save, pool, most=thread_count())
        finally:
            with undisturbed():
                leaving.close()


def name_stuff(asked: Vocabulary) -> None:
    """Say which words are left out where only things are looked for."""
    stuff = [entry.name for entry in asked if not entry.thing]
    if stuff:
        listed = ", ".join(stuff[:STUFF_SHOWN]) + (" …" if len(stuff) > STUFF_SHOWN else "")
        say(f"note: instances are things; left out as stuff: {listed}. '{stuff[0]} [thing]' makes it one.", err=True)


def report(source: Source, saved: Saved) -> None:
    """Print what was found in one picture, and where it is."""
    result = saved.result
    found: dict[str, list[Region]] = {}
    for region in result.shown:
        found.setdefault(region.name, []).append(region)
    lines = [describe(name, regions, result) for name, regions in list(found.items())[:NAMES_SHOWN]]
    if len(found) > NAMES_SHOWN:
        lines.append("…")
    if faint := len(result.regions) - len(result.shown):
        lines.append(f"{faint} more with a score below {LEAST_SHOWN}")
    say(f"{on_one_line(source.path)}: {' · '.join(lines) or 'nothing'}")
    say("  " + "  ".join(on_one_line(path) for path in saved.files))


def describe(name: str, regions: list[Region], result: Segmentation) -> str:
    """Sum up the regions of one name: how many, the share of the picture where they can be seen, and the best score."""
    count = f" ×{len(regions)}" if len(regions) > 1 else ""
    pixels = int((result.labels == regions[0].label).sum())
    return f"{name}{count} {pixels / result.labels.size:.0%} ({max(region.score for region in regions):.2f})"


def conclude(total: int, done: int, failures: dict[Path, Exception], output: Path) -> None:
    """Count the results and list the failures, also after an interruption."""
    if total > REPORTED or done + len(failures) < total:
        say(f"{done} of {total} pictures → {output}/")
    if failures:
        say(f"{len(failures)} of {total} pictures failed:" if total > 1 else "The picture failed:", err=True)
        for path, error in failures.items():
            kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
            say(f"  {on_one_line(path)}: {kind}{on_one_line(error)}", err=True)
