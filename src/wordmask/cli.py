"""The command line. Heavy imports happen inside the command that needs them."""

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wordmask.memory import keep_freed_memory
from wordmask.serve.limits import Limits
from wordmask.settings import DEFAULT_MOST, DEFAULT_OVERLAP, Settings

if TYPE_CHECKING:
    from wordmask.regions import Region
    from wordmask.segmentation import Segmentation
    from wordmask.segmenter import Segmenter
    from wordmask.sources import Source
    from wordmask.vocabulary import Vocabulary

app = typer.Typer(
    help="Words in, masks out: find in any picture the regions that a list of words names.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

REPORTED = 3  # up to so many pictures, each gets lines of its own; above, a progress bar

Precision = StrEnum("Precision", ["auto", "float32", "bfloat16", "float16"])
Background = StrEnum("Background", ["other"])
Synonyms = StrEnum("Synonyms", ["first", "mean", "each"])
Task = StrEnum("Task", ["panoptic", "instance", "semantic"])
Format = StrEnum("Format", ["labels", "overlays", "coco", "coco-panoptic", "yolo", "parquet"])
GraphFormat = StrEnum("GraphFormat", ["onnx", "openvino", "torch"])

# Options of more than one command
WordsOption = Annotated[
    str | None, typer.Option(help='Words in one string, instead of WORD...: "road; car, automobile; sky".')
]
WordsFile = Annotated[Path | None, typer.Option(help="A file with one class a line, synonyms separated by commas.")]
BuiltinList = Annotated[
    str | None, typer.Option(help="A built-in list, such as ade20k-150; see `wordmask vocabularies`.")
]
Model = Annotated[str, typer.Option("--model", "-m", help="A preset, a checkpoint file, or a hub id.")]
TaskOption = Annotated[Task | None, typer.Option(help="EOV-Seg does all (panoptic if left out), ERR-Seg is semantic.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")]
PrecisionOption = Annotated[
    Precision, typer.Option(help="Of the image side; auto: bfloat16 where the hardware has it.")
]
Keep = Annotated[int | None, typer.Option(min=1, help="ERR-Seg: how many classes are refined for each picture.")]
Threshold = Annotated[
    float, typer.Option(min=0, max=1, help="Leave out what is less probable: pixels, segments or instances.")
]
Overlap = Annotated[
    float | None,
    typer.Option(min=0, max=1, help=f"Panoptic: the share of its pixels a mask must win; {DEFAULT_OVERLAP}."),
]
Most = Annotated[
    int | None, typer.Option(min=1, help=f"Instance: how many pairs of mask and class are looked at; {DEFAULT_MOST}.")
]
BackgroundOption = Annotated[
    Background | None, typer.Option(help="other: let everyday things compete; what they win is unlabelled.")
]
SynonymsOption = Annotated[
    Synonyms | None, typer.Option(help="A class is its first name, the mean of all, or the best of each.")
]
Tile = Annotated[
    str | None, typer.Option(help="Semantic: see large pictures in tiles of so many pixels; auto: nothing is shrunk.")
]


def main() -> None:
    """Run the command line; what a user can cause ends in a message and exit status 2, never in a traceback."""
    if threading.current_thread() is threading.main_thread():
        # as an exception, so that half-written files are removed
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without → is no reason to fail
    try:
        app()
    except (ValueError, OSError) as error:
        say(f"error: {error}", err=True)
        sys.exit(2)


@app.callback(invoke_without_command=True)
def every_command(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and leave.")] = False,
) -> None:
    """Hold the options that every command has."""
    if version:
        from wordmask import __version__

        say(f"wordmask {__version__}")
        raise typer.Exit()
    if context.invoked_subcommand != "bench":  # which measures the machine first
        keep_freed_memory()


@app.command(no_args_is_help=True)
def segment(
    arguments: Annotated[
        list[str], typer.Argument(metavar="PICTURE... WORD...", help="Files, folders or globs; then what to look for.")
    ],
    words: WordsOption = None,
    words_file: WordsFile = None,
    vocabulary: BuiltinList = None,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("masks"),
    model: Model = "err-seg-base",
    task: TaskOption = None,
    device: Device = "auto",
    precision: PrecisionOption = Precision.auto,
    keep: Keep = None,
    threshold: Threshold = 0.0,
    overlap: Overlap = None,
    most: Most = None,
    background: BackgroundOption = None,
    synonyms: SynonymsOption = None,
    tile: Tile = None,
) -> None:
    """Outline the regions that words name: an overlay, a label map and a json file per picture.

    wordmask segment street.jpg road "car, automobile" sky

    Commas separate synonyms of one class. "snow drift [stuff]" says that it is not countable.
    """
    from wordmask.sources import find_pictures
    from wordmask.vocabulary import Vocabulary
    from wordmask.writing import at_home, check_writable

    output = at_home(output)
    pictures, wanted = read_arguments(arguments, words, words_file, vocabulary)
    asked = Vocabulary.of(wanted)  # errors in the words come before anything is loaded
    settings = read_settings(
        task=task,
        keep=keep,
        threshold=threshold,
        overlap=overlap,
        most=most,
        background=background,
        synonyms=synonyms,
        tile=tile,
    )
    sources = find_pictures(pictures, skip=output)
    check_writable(output)
    announce(sources, asked)
    segmenter = load_segmenter(model, device, str(precision))
    asked = Vocabulary.of(wanted, segmenter.model.vocabularies)
    segmenter.check(asked, settings)
    if task == Task.instance:
        name_stuff(asked)
    segmenter.encode_words(asked, settings.synonyms, settings.background)
    done, failures = [], {}
    try:
        with saving(
            segmenter.stream((source.path for source in sources), asked, settings), sources, output, done
        ) as saved:
            for source, outcome in zip(with_progress(sources), saved, strict=True):
                # torch runs out of memory with the last
                if isinstance(outcome, ValueError | OSError | MemoryError | RuntimeError):
                    failures[source.path] = outcome
                elif isinstance(outcome, Exception):
                    raise outcome
                elif len(sources) <= REPORTED:
                    report(source, *outcome)
    finally:
        conclude(len(sources), len(done), failures, output)
    if failures:
        raise typer.Exit(1)


@app.command()
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="IN", help="A reference checkpoint: .pth, or a state dict as safetensors.")
    ],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="Where to write our format: .safetensors.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Its preset; found by the shapes of its weights if left out.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace OUT if it exists.")] = False,
) -> None:
    """Turn a reference checkpoint into safetensors with the configuration inside."""
    from wordmask.writing import at_home, check_writable

    target = at_home(target)
    if target.suffix != ".safetensors":
        raise ValueError(f"OUT came as {str(target)!r}; expected a name that ends in .safetensors.")
    if target.exists() and not overwrite:
        raise ValueError(f"{str(target)!r} exists. Choose another name, or add --overwrite.")
    from wordmask import weights
    from wordmask.models import kind_of
    from wordmask.models.load import convert as write_converted

    check_writable(target.parent)
    preset, dropped = write_converted(weights.read(source), target, model)
    say(
        f"{source} → {target}: {preset}, every weight "
        f"used{f' but {len(dropped)} dropped on purpose:' if dropped else '.'}"
    )
    for reason, names in kind_of(preset).reference.drop_reasons(dropped).items():
        say(f"  {len(names):4}  {', '.join(names[:2])}{', …' if len(names) > 2 else ''}: {reason}")


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("demo"),
    scenes: Annotated[int, typer.Option(min=1, max=100, help="How many scenes.")] = 3,
    seed: Annotated[int, typer.Option(min=0, max=100_000_000, help="Which scenes.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
) -> None:
    """Segment generated scenes, full of things that no label ever showed, with both bundled models. Needs no
    network."""
    from rich.console import Console

    from wordmask.writing import at_home, check_writable

    check_writable(output := at_home(output))
    with Console(stderr=True).status("Loading both bundled models, and looking …"):
        from wordmask.demo import demo as show

        path, shown = show(output, scenes=scenes, seed=seed, device=device)
    for number, one in enumerate(shown, 1):
        say(f"scene {number}, searched for {len(one.words)} words; there are {', '.join(sorted(one.there))}")
        for name, result in one.results.items():
            found = {region.name for region in result.regions}
            wrong = found - one.there
            also = f"; also, wrongly, {', '.join(sorted(wrong))}" if wrong else ""
            say(f"  {name:12} {result.task:9} {len(found & one.there)} of {len(one.there)} found{also}")
    say(str(path))


@app.command(no_args_is_help=True)
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of one that comes with wordmask.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="What differs from the recipe.")
    ] = None,
) -> None:
    """Train a model by a recipe. Stopped or interrupted, the same command goes on where it was.

    wordmask train recipes/finetune.py data=my_pictures

    The recipes are finetune, err_seg_coco_stuff, eov_seg_coco_panoptic, shapeland_clip, shapeland_regions,
    shapeland_err_seg and shapeland_eov_seg.
    docs/training.md says what each needs.

    On several GPUs: torchrun --nproc-per-node 4 -m wordmask train RECIPE.
    """
    from wordmask.training.command import start

    if not start(recipe, settings or []).finished:
        raise typer.Exit(143)  # as of a process that was told to stop


@app.command(no_args_is_help=True)
def batch(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="A folder, a glob, a list (.txt), tar shards, or films.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder for the results; holds those of one job.")],
    listed: Annotated[list[str] | None, typer.Argument(metavar="[WORD]...", help="What to look for.")] = None,
    words: WordsOption = None,
    words_file: WordsFile = None,
    vocabulary: BuiltinList = None,
    formats: Annotated[
        list[Format] | None, typer.Option("--format", help="What to write; give it several times. labels if left out.")
    ] = None,
    every: Annotated[float, typer.Option(help="Films: seconds from one picture to the next.")] = 1.0,
    processes: Annotated[
        int | None, typer.Option(min=1, help="One on each GPU, or on each four cores, if left out.")
    ] = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Work on the Ray cluster that RAY_ADDRESS names, or a local one.")
    ] = False,
    model: Model = "err-seg-base",
    task: TaskOption = None,
    device: Device = "auto",
    precision: PrecisionOption = Precision.auto,
    keep: Keep = None,
    threshold: Threshold = 0.0,
    overlap: Overlap = None,
    most: Most = None,
    background: BackgroundOption = None,
    synonyms: SynonymsOption = None,
    tile: Tile = None,
) -> None:
    """Label a whole collection. Killed or stopped, the same command goes on where it was.

    wordmask batch photos masks road "car, automobile" sky --format labels --format coco
    """
    from wordmask.batch.command import label_collection
    from wordmask.writing import at_home

    options = {"--words": words, "--words-file": words_file, "--vocabulary": vocabulary}
    wanted = read_words(listed or [], options, [source])
    settings = read_settings(
        task=task,
        keep=keep,
        threshold=threshold,
        overlap=overlap,
        most=most,
        background=background,
        synonyms=synonyms,
        tile=tile,
    )
    details = {
        "model": model,
        "device": device,
        "precision": str(precision),
        "processes": processes,
        "ray": ray,
        "every": every,
    }
    names = [str(name) for name in formats or [Format.labels]]
    report = label_collection(source, at_home(output), wanted, formats=names, settings=settings, say=say, **details)
    if report.failures:
        raise typer.Exit(1)


@app.command()
def bench(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL...]", help="Presets; released ones get random weights.")
    ] = None,
    vocabulary: Annotated[str, typer.Option(help="A built-in list; see `wordmask vocabularies`.")] = "ade20k-150",
    precision: PrecisionOption = Precision.auto,
    batch: Annotated[int, typer.Option(min=1, help="Also time so many pictures together.")] = 1,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the models; their parts can't be told apart then.")
    ] = False,
    runs: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 5,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    json: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
) -> None:
    """Time models on this machine, part by part, beside what it could do at best. Needs no weights and no network.

    wordmask bench err-seg-base eov-seg-small --json speed.json
    """
    from wordmask.bench import bench_all

    bench_all(
        models or ["err-seg-tiny", "eov-seg-tiny"],
        vocabulary,
        precision=str(precision),
        batch=batch,
        compile=compile,
        runs=runs,
        device=device,
        file=json,
    )


@app.command(no_args_is_help=True)
def evaluate(
    model: Annotated[str, typer.Argument(help="A preset, a checkpoint file, or a hub id.")],
    names: Annotated[list[str], typer.Argument(metavar="SPLIT...", help="What to measure on; see `wordmask splits`.")],
    data: Annotated[
        Path | None, typer.Option(help="The folder of data sets; else WORDMASK_DATA, DETECTRON2_DATASETS, ./datasets.")
    ] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="Only so many, for a first look.")] = None,
    partial: Annotated[bool, typer.Option(help="Measure what is there of a split that is not whole.")] = False,
    keep: Annotated[int | None, typer.Option(min=1, help="ERR-Seg: not the paper's K.")] = None,
    vocabulary: Annotated[
        str | None, typer.Option(help="Other names for the classes: a built-in list or a file.")
    ] = None,
    synonyms: Annotated[Synonyms | None, typer.Option(help="Not the paper's use of synonyms.")] = None,
    size: Annotated[
        int | None, typer.Option(min=32, help="Not the paper's input: side of the square, or shorter edge.")
    ] = None,
    shrink: Annotated[
        int | None, typer.Option(min=32, help="Resize larger pictures, and labels, to this shorter side first.")
    ] = None,
    overlap: Overlap = None,
    most: Most = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: Annotated[
        Precision, typer.Option(help="Of the image side; published figures are of float32.")
    ] = Precision.float32,
    work: Annotated[
        Path | None, typer.Option(help="Where counts are kept until all is done; in the cache folder.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the whole report here, as json.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the whole report here, as Markdown.")] = None,
) -> None:
    """Measure a model on benchmarks, by its paper's protocol. Stopped, the same command goes on where it was.

    wordmask evaluate err-seg-tiny shapeland-150

    On several GPUs or processes: torchrun --nproc-per-node 4 -m wordmask evaluate MODEL SPLIT...
    """
    from wordmask.evaluation.command import run

    choices = {
        "keep": keep,
        "vocabulary": vocabulary,
        "synonyms": synonyms and str(synonyms),
        "size": size,
        "shrink": shrink,
    }
    choices |= {"overlap": overlap, "most": most}
    asked = {
        "data": data,
        "pictures": pictures,
        "partial": partial,
        "device": device,
        "precision": str(precision),
        "work": work,
    }
    run(model, names, choices=choices, json_file=json, markdown_file=markdown, **asked)


@app.command()
def splits(data: Annotated[Path | None, typer.Option(help="The folder of data sets.")] = None) -> None:
    """List what `wordmask evaluate` can measure on, and whether it is here."""
    from wordmask.data.splits import describe_splits

    for line in describe_splits(data):
        say(line)


@app.command()
def vocabularies(name: Annotated[str | None, typer.Argument(help="Show the classes of this one.")] = None) -> None:
    """List the built-in vocabularies, or the classes of one."""
    from wordmask.vocabulary import Vocabulary, builtin_names

    if name is None:
        for builtin in (full for full in builtin_names() if "/" in full):
            shown = Vocabulary.builtin(builtin)
            say(f"{builtin:30} {len(shown):5} classes   {shown.licence:10}  {shown.source}")
        return
    for label, entry in enumerate(Vocabulary.builtin(name)):
        say(f"{label:5}  {'thing' if entry.thing else 'stuff'}  {', '.join(entry.names)}")


@app.command()
def serve(
    models: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="As for segment; several times for several.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8000,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or mps.")] = "auto",
    precision: PrecisionOption = Precision.auto,
    upload: Annotated[float, typer.Option(min=0.001, help="MB of a picture's file.")] = Limits.upload / 1e6,
    pixels: Annotated[float, typer.Option(min=0.001, help="Million pixels of a picture.")] = Limits.pixels / 1e6,
    words: Annotated[int, typer.Option(min=1, help="Words in a request, synonyms counted.")] = Limits.words,
    queue: Annotated[
        int, typer.Option(min=1, help="Requests under way; the next is told to come again.")
    ] = Limits.queue,
    rate: Annotated[int, typer.Option(min=0, help="Requests a minute from one client; 0 is no limit.")] = Limits.rate,
    seconds: Annotated[float, typer.Option(min=0.1, help="From a request's first byte to its last.")] = Limits.seconds,
    batch: Annotated[int, typer.Option(min=1, help="Pictures that go through a model together.")] = Limits.batch,
    proxy: Annotated[str | None, typer.Option(help="Address of a proxy whose X-Forwarded-For is believed.")] = None,
) -> None:
    """Serve a page and an API on this machine: drop a picture, type words, see the masks.

    wordmask serve --model eov-seg-tiny

    Without --model, the two that come with the package are served; they need no network.
    """
    from rich.console import Console

    with Console(stderr=True).status("Loading …"):
        from wordmask.demo import MODELS
        from wordmask.serve.server import create_server, load_all, run

        limits = Limits(round(upload * 1e6), round(pixels * 1e6), words, queue, rate, seconds, batch)
        segmenters = load_all(models or list(MODELS), device=device, precision=str(precision), batch=batch)
    if models is None:
        say(
            f"note: {' and '.join(MODELS)} are small; --model err-seg-base fetches the released weights, once.",
            err=True,
        )
    run(create_server(segmenters, limits, host=host, port=port, proxy=proxy), lambda url: say(f"{url}  (Ctrl-C stops)"))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds that torch gets to say what it can use.")] = 2.0,
) -> None:
    """Say what hardware and precision will be used, what is cached, what is missing and how to get it."""
    from wordmask.doctor.examine import examine
    from wordmask.doctor.findings import report_lines

    found = examine(wait)
    if as_json:
        import json

        say(json.dumps(found.to_dict(), indent=1))
    else:
        for line in report_lines(found):
            say(line)


@app.command()
def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A preset, a checkpoint file, or a hub id.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the graphs and what belongs to them.")],
    form: Annotated[
        GraphFormat, typer.Option("--format", help="torch is a program of torch.export.")
    ] = GraphFormat.onnx,
    overwrite: Annotated[bool, typer.Option(help="Replace the folder if it exists.")] = False,
) -> None:
    """Write a model as graphs that take the words as an input, and a runtime for them that needs no torch.

    wordmask export eov-seg-tiny --format onnx -o exported

    Checked against the model, on other words and another size, before anything is written.
    """
    from wordmask.export import check_form
    from wordmask.export import export as write

    check_form(str(form))
    segmenter = load_segmenter(model, "cpu", "float32")
    for path in write(segmenter, output, form=str(form), overwrite=overwrite, say=lambda line: say(line, err=True)):
        say(str(path))


@app.command(no_args_is_help=True)
def explain(
    arguments: Annotated[list[str], typer.Argument(metavar="PICTURE WORD...", help="One file; then what to look for.")],
    words: WordsOption = None,
    words_file: WordsFile = None,
    vocabulary: BuiltinList = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the pictures; that of PICTURE if left out.")
    ] = None,
    show: Annotated[int, typer.Option(min=1, max=50, help="How many classes or queries are drawn.")] = 6,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
    model: Model = "err-seg-base",
    device: Device = "auto",
    precision: PrecisionOption = Precision.auto,
    keep: Keep = None,
    threshold: Threshold = 0.0,
    overlap: Overlap = None,
    background: BackgroundOption = None,
    synonyms: SynonymsOption = None,
) -> None:
    """Show what a model went by in a picture: votes and cost maps (ERR-Seg), or weights, queries and gates (EOV-Seg).

    wordmask explain street.jpg road "car, automobile" sky

    Of EOV-Seg it is the panoptic result that is explained. docs/explain.md says how to read the pictures.
    """
    from wordmask.sources import find_pictures
    from wordmask.vocabulary import Vocabulary
    from wordmask.writing import at_home, check_writable

    pictures, wanted = read_arguments(arguments, words, words_file, vocabulary)
    asked = Vocabulary.of(wanted)  # errors in the words come before anything is loaded
    sources = find_pictures(pictures)
    if len(sources) > 1:
        raise ValueError(
            f"{len(sources)} pictures were given: {sources[0].path}, {sources[1].path}, …; one is explained at a time."
        )
    folder, file = at_home(output or sources[0].path.parent), json and at_home(json)
    if file and file.is_dir():
        raise ValueError(f"{str(file)!r} is a folder; expected a file to write the numbers to.")
    for needed in (folder, *([file.parent] if file else [])):
        check_writable(needed)
    announce(sources, asked)
    segmenter = load_segmenter(model, device, str(precision))
    from wordmask.explain.command import run

    asked = Vocabulary.of(wanted, segmenter.model.vocabularies)
    settings = read_settings(keep=keep, threshold=threshold, overlap=overlap, background=background, synonyms=synonyms)
    segmenter.check(asked, settings)
    run(segmenter, sources[0], asked, settings=settings, output=folder, most=show, json_file=file, say=say)


def read_arguments(
    arguments: list[str], words: str | None, words_file: Path | None, vocabulary: str | None
) -> tuple[list[str], list[str] | Path | str]:
    """Tell pictures from words, whichever way the words came.

    Raises:
        ValueError: No pictures, no words, or words in two ways.
    """
    from wordmask.sources import split_pictures_and_words

    pictures, listed = split_pictures_and_words(arguments)
    wanted = read_words(listed, {"--words": words, "--words-file": words_file, "--vocabulary": vocabulary}, pictures)
    if not pictures:
        raise ValueError(
            f"No picture was given: no existing file, folder or glob among {', '.join(map(repr, arguments))}, which "
            "were read as words."
        )
    return pictures, wanted


def read_words(listed: list[str], options: dict[str, object], pictures: list[str]) -> list[str] | Path | str:
    """Take the words, whichever way they came.

    Args:
        pictures: What was given before them.

    Raises:
        ValueError: No words, or words in two ways.
    """
    from wordmask.vocabulary import builtin_names

    given = {name: value for name, value in options.items() if value is not None}
    if len(given) + bool(listed) > 1:
        ways = [*(["WORD... " + ", ".join(map(repr, listed))] if listed else []), *given]
        raise ValueError(
            f"The words came in {len(ways)} ways: {' and '.join(ways)}. Give them in one. "
            "(What is no picture is read as a word.)"
        )
    if not given and not listed and pictures:
        raise ValueError(
            f"No words were given after {', '.join(map(repr, pictures))}. Add what to look for: wordmask segment "
            "street.jpg road sky. "
            "A word that is also a folder here goes into --words."
        )
    vocabulary = options["--vocabulary"]
    if vocabulary is not None and vocabulary not in builtin_names():
        from wordmask.vocabulary import Vocabulary

        Vocabulary.builtin(vocabulary)  # raises, with the near matches
    return next(iter(given.values()), listed)


def read_settings(*, tile: str | None = None, **options: object) -> Settings:
    """Options as settings: choices as text, a number of pixels as a number."""
    plain = {name: str(value) if isinstance(value, StrEnum) else value for name, value in options.items()}
    return Settings(tile=int(tile) if tile and tile.isdecimal() else tile, **plain)


def name_stuff(asked: "Vocabulary") -> None:
    """Say which words are left out where only things are looked for."""
    stuff = [entry.name for entry in asked if not entry.thing]
    if stuff:
        listed = ", ".join(stuff[:5]) + (" …" if len(stuff) > 5 else "")
        say(f"note: instances are things; left out as stuff: {listed}. '{stuff[0]} [thing]' makes it one.", err=True)


def load_segmenter(model: str, device: str, precision: str) -> "Segmenter":
    """Load a model with a sign of life on the terminal."""
    from rich.console import Console

    with Console(stderr=True).status(f"Loading {model} …"):
        from wordmask.segmenter import load

        segmenter = load(model, device=device, precision=precision)
    if model.endswith("-untrained"):
        say(f"note: {model} has random weights; its labels mean nothing.", err=True)
    return segmenter


def announce(sources: "list[Source]", vocabulary) -> None:
    """Say what was understood, so that a word taken for a picture is seen at once."""
    names = vocabulary.names if len(vocabulary) <= 8 else [*vocabulary.names[:7], "…"]
    pictures = "1 picture" if len(sources) == 1 else f"{len(sources)} pictures"
    words = "1 word" if len(vocabulary) == 1 else f"{len(vocabulary)} words"
    say(f"{pictures} · {words}: {', '.join(names)}", err=True)


def with_progress(sources: "list[Source]") -> "Iterator[Source]":
    """Go through the pictures, with a bar where there are several."""
    from rich.console import Console
    from rich.progress import track

    if len(sources) <= REPORTED:
        yield from sources
        return
    console = Console(stderr=True)
    yield from track(sources, description="Segmenting", console=console, disable=not console.is_terminal)


@contextmanager
def saving(
    results: "Iterator[Segmentation | Exception]", sources: "list[Source]", output: Path, done: list[Path]
) -> "Iterator[Iterator[tuple[Segmentation, list[Path]] | Exception]]":
    """Save results in threads, while the next are made; give each with its files, or its error.

    What is begun when the block is left, by Ctrl-C too, is written whole, and counted.

    Args:
        done: The stem of every picture that was saved is added.
    """
    from wordmask.pipeline import ahead, thread_count, thread_pool
    from wordmask.writing import undisturbed

    def save(pair: "tuple[Source, Segmentation | Exception]") -> "tuple[Segmentation, list[Path]]":
        source, result = pair
        if isinstance(result, Exception):
            raise result
        written = result.save(output / source.stem)
        done.append(source.stem)
        return result, written

    with ExitStack() as leaving:
        pool = leaving.enter_context(thread_pool(thread_count()))
        leaving.callback(results.close)
        try:
            yield ahead(zip(sources, results, strict=True), save, pool, most=thread_count())
        finally:
            with undisturbed():
                leaving.close()


def report(source: "Source", result: "Segmentation", written: list[Path]) -> None:
    """Print what was found in one picture, and where it is."""
    from wordmask.regions import LEAST_SHOWN

    found: dict[str, list[Region]] = {}
    for region in result.shown:
        found.setdefault(region.name, []).append(region)
    lines = [describe(name, regions, result) for name, regions in list(found.items())[:8]]
    faint = len(result.regions) - len(result.shown)
    more = [*(["…"] if len(found) > 8 else []), *([f"{faint} more with a score below {LEAST_SHOWN}"] if faint else [])]
    say(f"{source.path}: {' · '.join([*lines, *more]) or 'nothing'}")
    say("  " + "  ".join(str(path) for path in written))


def describe(name: str, regions: "list[Region]", result: "Segmentation") -> str:
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
            say(f"  {path}: {kind}{error}", err=True)


def say(line: str, *, err: bool = False) -> None:
    """Print a line, to standard error if `err`; a reader who has left (`| head`) doesn't stop the work."""
    stream = sys.stderr if err else sys.stdout
    try:
        typer.echo(line, file=stream)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
