"""`wordmask explain`: tables on the terminal, a sheet for each question, and the numbers in a file."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from wordmask.explain.answer import Explanation, explain
from wordmask.explain.class_maps import ClassMapExplanation
from wordmask.explain.query_masks import FATES, QueryExplanation
from wordmask.explain.sheets import draw
from wordmask.folders import EXPLAINED
from wordmask.model_choice import ModelChoice
from wordmask.segmenter import Segmenter
from wordmask.settings import Settings
from wordmask.sources import Source, find_pictures
from wordmask.terminal import announce, say
from wordmask.vocabulary import Vocabulary
from wordmask.writing import atomic, check_writable, expanded

# rows of a table: the first, and those on either side of the border between what is kept and what is not
LISTED, NEAR = (12, 3)


def explain_picture(
    pictures: list[str],
    words: list[str] | Path | str,
    *,
    model: ModelChoice,
    settings: Settings,
    output: Path | None,
    most: int,
    json_file: Path | None,
) -> Explanation:
    """Load a model, and explain what it goes by in one picture.

    Args:
        pictures: A file, or a folder or glob that holds one.
        words: As `Vocabulary.of` reads them.
        output: Folder for the sheets; that of the picture if None.
        most: How many classes or queries are drawn.
        json_file: Where the numbers go, if anywhere.

    Raises:
        ValueError: Words, settings or a model that make no sense; no picture, or several; a folder or file that can't
            be written to.
    """
    asked = Vocabulary.read(words)  # errors in the words come before anything is loaded
    sources = find_pictures(pictures)
    if len(sources) > 1:
        raise ValueError(
            f"{len(sources)} pictures were given: {sources[0].path}, {sources[1].path}, …; one is explained at a time."
        )
    folder, file = expanded(output or sources[0].path.parent), json_file and expanded(json_file)
    if file and file.is_dir():
        raise ValueError(f"{str(file)!r} is a folder; expected a file to write the numbers to.")
    for needed in (folder, *([file.parent] if file else [])):
        check_writable(needed)
    announce(len(sources), asked)
    segmenter = model.load()
    asked = asked.with_names_for(words, segmenter.model.vocabularies)
    segmenter.check(asked, settings)
    return run(segmenter, sources[0], asked, settings=settings, output=folder, most=most, json_file=file)


def run(
    segmenter: Segmenter,
    source: Source,
    words: Vocabulary,
    *,
    settings: Settings,
    output: Path,
    most: int,
    json_file: Path | None,
) -> Explanation:
    """Explain one picture: print a table, and write the sheets and, if asked for, the numbers.

    Args:
        output: Folder for the sheets, `NAME.QUESTION.explain.png`.
        most: How many classes or queries are drawn.
        json_file: Where the numbers go.

    Raises:
        ValueError: As `explain`.
        OSError: A folder cannot be written to.
    """
    found = explain(segmenter, source.path, words, settings)
    files: dict[Path, Callable[[Path], object]] = {
        output / f"{source.path.stem}.{question}{EXPLAINED}": sheet.save
        for question, sheet in draw(found, most=most).items()
    }
    if json_file is not None:
        text = json.dumps(found.to_dict(), indent=1, ensure_ascii=False) + "\n"
        files[json_file] = lambda path: path.write_text(text, encoding="utf-8")
    with ExitStack() as whole:  # all of them, or none
        for path, write in files.items():
            write(whole.enter_context(atomic(path)))
    console = Console(highlight=False)
    for part in in_terminal(found):
        console.print(part)
    for path in files:
        say(str(path))
    return found


def in_terminal(found: Explanation) -> Iterator[Table | Text]:
    """What a person sees first."""
    if isinstance(found, ClassMapExplanation):
        yield vote_table(found)
        return
    if found.selection:
        weights = found.selection.weights
        yield Text(f"weights of the pixels: {weights.min():.3f} to {weights.max():.3f}, mean {weights.mean():.3f}")
    yield query_table(found)
    counts = {fate: found.fates.count(fate) for fate in FATES}
    yield Text(
        " · ".join(f"{count} {fate}" for fate, count in counts.items() if count) + f", of {len(found.fates)} queries"
    )


def vote_table(found: ClassMapExplanation) -> Table:
    """The classes with most votes, and those around the border between what is kept and what is not."""
    kept, classes = len(found.kept), found.order.tolist()
    lost = [classes.index(label) for label in found.lost_words()[:NEAR]]
    listed = sorted({*range(min(LISTED, kept)), *range(max(0, kept - NEAR), min(kept + NEAR, len(classes))), *lost})
    rows = []
    for place, rank in enumerate(listed):
        if place and rank != listed[place - 1] + 1:
            rows.append(["…"])
        label = classes[rank]
        share = f"{found.shares[label]:.1%}" if label < len(found.shares) else "background"
        numbers = f"{found.votes[label]:.2f}", f"{found.peaks[label]:.3f}", share
        rows.append([str(rank + 1), found.names[label], *numbers, "kept" if rank < kept else "no"])
    title = f"{kept} of {len(classes)} classes kept by the votes of {found.voters} pixels"
    return table(title, ["", "class", "votes", "peak cosine", "in the result", "kept"], rows)


def query_table(found: QueryExplanation) -> Table:
    """The queries of segments, or the best ones if there are none."""
    inside = [query for query in found.order.tolist() if found.regions[query]]
    rows = []
    for query in (inside or found.order.tolist())[:LISTED]:
        best = found.named(query)[0]
        opinions = [f"{probs[best]:.2f}" for probs in found.opinions(query).values()]
        gates = (
            [f"{found.gates[-1].semantic_strength[query]:.2f}", f"{found.gates[-1].spatial_strength[query]:.2f}"]
            if found.gates
            else []
        )
        fate = f"segment {found.regions[query]}" if found.regions[query] else found.fates[query]
        rows.append([str(query), found.names[best], *opinions, f"{found.final[query, -1]:.2f}", *gates, fate])
    if len(inside) > LISTED:
        rows.append(["…"])
    head = [
        "query",
        "class",
        "decoder",
        "CLIP",
        "both",
        "void",
        *(["semantic", "spatial"] if found.gates else []),
        "fate",
    ]
    return table(f"{len(inside)} queries in {len(found.result.regions)} segments", head, rows)


def table(title: str, head: list[str], rows: list[list[str]]) -> Table:
    """A table whose texts are taken as they are."""
    shown = Table(title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in head:
        shown.add_column(Text(name), justify="left" if name in ("class", "kept", "fate") else "right", overflow="fold")
    for row in rows:
        shown.add_row(*map(Text, row))
    return shown
