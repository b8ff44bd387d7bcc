"""The command line: what every command is called and takes. Heavy imports happen inside the command that needs them."""

import io
import signal
import sys
import threading
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import typer

from wordmask.memory import keep_freed_memory
from wordmask.model_choice import ModelChoice
from wordmask.options import (
    Device,
    FolderKeys,
    ModelOptions,
    Most,
    Overlap,
    Precision,
    PrecisionName,
    WordOptions,
    with_shared_options,
)
from wordmask.serve.limits import Limits
from wordmask.sources import without_files
from wordmask.terminal import busy, say
from wordmask.vocabulary import Synonyms

# those of `batch.formats.FORMATS`; Typer takes no list of a Literal
Format = StrEnum("Format", ["labels", "overlays", "coco", "coco-panoptic", "yolo", "parquet"])

app = typer.Typer(
    help="Words in, masks out: find in any picture the regions that a list of words names.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
@with_shared_options()
def segment(
    arguments: Annotated[
        list[str], typer.Argument(metavar="PICTURE... WORD...", help="Files, folders or globs; then what to look for.")
    ],
    *,
    words: WordOptions,
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("masks"),
    options: ModelOptions,
) -> None:
    """Outline the regions that words name: an overlay, a label map and a json file per picture.

    wordmask segment street.jpg road "car, automobile" sky

    Commas separate synonyms of one class, semicolons classes. "snow drift [stuff]" says that it is not countable.
    """
    pictures, wanted = words.told_apart(arguments)
    from wordmask.segmenting import segment_pictures

    if not segment_pictures(pictures, wanted, output, model=options.choice, settings=options.settings):
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
    from wordmask.models.command import convert_file

    convert_file(source, target, model, overwrite=overwrite)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")] = Path("demo"),
    scenes: Annotated[int, typer.Option(min=1, max=100, help="How many scenes.")] = 3,
    seed: Annotated[int, typer.Option(min=0, max=100_000_000, help="Which scenes.")] = 0,
    device: Device = "auto",
) -> None:
    """Segment generated scenes, full of things that no label ever showed, with both bundled models. Needs no
    network."""
    from wordmask.writing import check_writable, expanded

    check_writable(output := expanded(output))
    with busy("Loading both bundled models, and looking …"):
        from wordmask.demo import demo as segment_scenes
        from wordmask.demo import lines_about

        path, shown = segment_scenes(output, scenes=scenes, seed=seed, device=device)
    for line in lines_about(shown):
        say(line)
    say(str(path))


@app.command(no_args_is_help=True)
def train(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of one that comes with wordmask.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="What differs from the recipe.")
    ] = None,
    incomplete: Annotated[
        bool, typer.Option("--partial", help="finetune: leave out, and name, what can't be used; as partial=true.")
    ] = False,
    changed_data: Annotated[
        bool,
        typer.Option("--changed-data", help="Go on although the data have changed; as accept_changed_data=true."),
    ] = False,
) -> None:
    """Train a model by a recipe. Stopped or interrupted, the same command goes on where it was.

    wordmask train recipes/finetune.py data=my_pictures

    The recipes are finetune, err_seg_coco_stuff, eov_seg_coco_panoptic, shapeland_clip, shapeland_regions,
    shapeland_err_seg and shapeland_eov_seg.
    docs/training.md says what each needs.

    On several GPUs: torchrun --nproc-per-node 4 -m wordmask train RECIPE.
    """
    from wordmask.training.command import start

    assignments = [*(settings or []), *["partial=true"] * incomplete, *["accept_changed_data=true"] * changed_data]
    if not start(recipe, assignments).finished:
        raise typer.Exit(143)  # as of a process that was told to stop


@app.command(no_args_is_help=True)
@with_shared_options()
def batch(
    source: Annotated[
        str, typer.Argument(metavar="INPUT", help="A folder, a glob, a list (.txt), tar shards, or films.")
    ],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="Folder for the results; holds those of one job.")],
    listed: Annotated[list[str] | None, typer.Argument(metavar="[WORD]...", help="What to look for.")] = None,
    *,
    words: WordOptions,
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
    options: ModelOptions,
) -> None:
    """Label a whole collection. Killed or stopped, the same command goes on where it was.

    wordmask batch photos masks road "car, automobile" sky --format labels --format coco
    """
    wanted, settings = words.chosen(without_files(listed or []), after=[source]), options.settings
    from wordmask.batch.command import label_collection
    from wordmask.batch.inputs import Collection

    report = label_collection(
        Collection(source, every),
        output,
        wanted,
        formats=formats or [Format.labels],
        settings=settings,
        model=options.choice,
        processes=processes,
        ray=ray,
    )
    if report.failures:
        raise typer.Exit(1)


@app.command()
def bench(
    models: Annotated[
        list[str] | None, typer.Argument(metavar="[MODEL...]", help="Presets; released ones get random weights.")
    ] = None,
    vocabulary: Annotated[str, typer.Option(help="A built-in list; see `wordmask vocabularies`.")] = "ade20k-150",
    precision: Precision = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Also time so many pictures together.")] = 1,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the models; their parts can't be told apart then.")
    ] = False,
    runs: Annotated[int, typer.Option(min=1, help="How often each is timed.")] = 5,
    device: Device = "auto",
    json: Annotated[Path | None, typer.Option("--json", help="Also write everything to this file.")] = None,
) -> None:
    """Time models on this machine, part by part, beside what it could do at best. Needs no weights and no network.

    wordmask bench err-seg-base eov-seg-small --json speed.json
    """
    from wordmask.bench.command import bench_all

    bench_all(
        models or ["err-seg-tiny", "eov-seg-tiny"],
        vocabulary,
        precision=precision,
        batch=batch,
        compile=compile,
        runs=runs,
        device=device,
        file=json,
    )


@app.command(no_args_is_help=True)
def evaluate(
    model: Annotated[str, typer.Argument(help="A preset, a checkpoint file, or a hub id.")],
    names: Annotated[list[str], typer.Argument(metavar="SPLIT...", help="See `wordmask splits`; or your own folder.")],
    data: Annotated[
        Path | None, typer.Option(help="The folder of data sets; else WORDMASK_DATA, DETECTRON2_DATASETS, ./datasets.")
    ] = None,
    pictures: Annotated[int | None, typer.Option(min=1, help="Only so many, for a first look.")] = None,
    incomplete: Annotated[
        bool,
        typer.Option("--partial/--no-partial", help="Measure what is there of a split that is not whole."),
    ] = False,
    reading: FolderKeys = None,
    keep: Annotated[int | None, typer.Option(min=1, help="ERR-Seg: not the paper's K.")] = None,
    vocabulary: Annotated[str | None, typer.Option(help="Other names for the classes: a list or a file.")] = None,
    synonyms: Annotated[Synonyms | None, typer.Option(help="Not the paper's use of synonyms.")] = None,
    size: Annotated[
        int | None, typer.Option(min=32, help="Not the paper's input: side of the square, or shorter edge.")
    ] = None,
    shrink: Annotated[
        int | None, typer.Option(min=32, help="Resize larger pictures, and labels, to this shorter side first.")
    ] = None,
    overlap: Overlap = None,
    most: Most = None,
    device: Device = "auto",
    precision: Annotated[
        PrecisionName, typer.Option(help="Of the image side; published figures are of float32.")
    ] = "float32",
    work: Annotated[
        Path | None, typer.Option(help="Where counts are kept until all is done; in the cache folder.")
    ] = None,
    json: Annotated[Path | None, typer.Option(help="Write the whole report here, as json.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the whole report here, as Markdown.")] = None,
) -> None:
    """Measure a model on benchmarks, by its paper's protocol. Stopped, the same command goes on where it was.

    wordmask evaluate err-seg-tiny shapeland-150

    On several GPUs: torchrun --nproc-per-node 4 -m wordmask evaluate MODEL SPLIT...
    """
    from wordmask.data.reading import FolderReading
    from wordmask.evaluation.command import run
    from wordmask.evaluation.evaluate import Choices
    from wordmask.evaluation.evaluate import evaluate as measure

    choices = Choices(keep, vocabulary, synonyms, size, shrink, overlap, most)
    measured = partial(
        measure,
        model,
        names,
        data=data,
        pictures=pictures,
        partial=incomplete,
        reading=FolderReading.of(reading or []),
        choices=choices,
        device=device,
        precision=precision,
        work=work,
    )
    run(measured, json_file=json, markdown_file=markdown)


@app.command()
def splits(data: Annotated[Path | None, typer.Option(help="The folder of data sets.")] = None) -> None:
    """List what `wordmask evaluate` can measure on, and whether it is here."""
    from wordmask.data.splits import describe_splits

    for line in describe_splits(data):
        say(line)


@app.command()
def vocabularies(name: Annotated[str | None, typer.Argument(help="Show the classes of this one.")] = None) -> None:
    """List the built-in vocabularies, or the classes of one: on a terminal with their labels, else as a words file.

    wordmask vocabularies ade20k-150 > words.txt
    """
    from wordmask.vocabulary_lists import describe_classes, describe_vocabularies

    for line in describe_vocabularies() if name is None else describe_classes(name, plainly=not sys.stdout.isatty()):
        say(line)


@app.command()
def serve(
    models: Annotated[
        list[str] | None, typer.Option("--model", "-m", help="As for segment; several times for several.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8000,
    device: Device = "auto",
    precision: Precision = "auto",
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
    limits = Limits(round(upload * 1e6), round(pixels * 1e6), words, queue, rate, seconds, batch)
    from wordmask.serve.command import serve_models

    serve_models(models, limits, device=device, precision=precision, host=host, port=port, proxy=proxy)


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
        Literal["onnx", "openvino", "torch"], typer.Option("--format", help="torch is a program of torch.export.")
    ] = "onnx",
    overwrite: Annotated[bool, typer.Option(help="Replace the folder if it exists.")] = False,
) -> None:
    """Write a model as graphs that take the words as an input, and a runtime for them that needs no torch.

    wordmask export eov-seg-tiny --format onnx -o exported

    Checked against the model, on other words and another size, before anything is written.
    """
    from wordmask.export import check_form
    from wordmask.export import export as write

    check_form(form)
    segmenter = ModelChoice(model, "cpu", "float32").load()
    for path in write(segmenter, output, form=form, overwrite=overwrite, say=lambda line: say(line, err=True)):
        say(str(path))


@app.command(no_args_is_help=True)
@with_shared_options(without=("task", "most", "tile"))
def explain(
    arguments: Annotated[list[str], typer.Argument(metavar="PICTURE WORD...", help="One file; then what to look for.")],
    *,
    words: WordOptions,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder for the pictures; that of PICTURE if left out.")
    ] = None,
    show: Annotated[int, typer.Option(min=1, max=50, help="How many classes or queries are drawn.")] = 6,
    json: Annotated[Path | None, typer.Option("--json", help="Also write the numbers to this file.")] = None,
    options: ModelOptions,
) -> None:
    """Show what a model went by in a picture: votes and cost maps (ERR-Seg), or weights, queries and gates (EOV-Seg).

    wordmask explain street.jpg road "car, automobile" sky

    Of EOV-Seg it is the panoptic result that is explained. docs/explain.md says how to read the pictures.
    """
    pictures, wanted = words.told_apart(arguments)
    from wordmask.explain.command import explain_picture

    explain_picture(
        pictures,
        wanted,
        model=options.choice,
        settings=options.settings,
        output=output,
        most=show,
        json_file=json,
    )
