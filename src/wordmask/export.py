"""`wordmask export`: a model → graphs that run elsewhere and take the words as an input. Nothing is written that was
not checked.

Two graphs: `model`, from pixels and the vectors of words to the raw output, and `text`, from tokens to those vectors.
Beside them `model.json` says what they want, `tokenizer.json` makes tokens of words, and `runtime.py`, which needs no
torch, puts all together; it comes with the modules that it is made of.
"""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from wordmask import runtime
from wordmask.clip import CONTEXT_LENGTH, encode_tokens, token_tables, tokenize
from wordmask.data.shapeland import COMPOSITIONS, MATERIALS, World, draw_scene
from wordmask.data.shapeland.sets import FIRST
from wordmask.image import prepare
from wordmask.models import Model
from wordmask.pixels import PADDING, ImageInput
from wordmask.raw import ClassMaps, QueryMasks
from wordmask.segmenter import Segmenter
from wordmask.settings import DEFAULT_OVERLAP, kept_of
from wordmask.surroundings import as_if_alone, float32_by_default
from wordmask.text import Words
from wordmask.vocabulary import builtin_names, stuff_words
from wordmask.writing import JsonObject, check_writable, expanded, unfinished_folder

NEEDED = {  # format → the packages that write and check it, and the extra that has them
    "onnx": (("onnx", "onnxscript", "onnxruntime", "tokenizers"), "onnx"),
    "openvino": (("onnx", "onnxscript", "openvino", "tokenizers"), "openvino"),
    "torch": ((), ""),
}
# what runs the graphs without torch lies in a folder of this name beside them, and has one door
PARTS = "wordmask_runtime"
COPIED = (
    *("runtime.py", "words.py", "word_lines.py", "file_names.py", "array_readings.py"),
    *("pixels.py", "picture_files.py", "pngs.py", "tiffs.py", "decoded.py"),
)
DOOR = f'''"""Run the model in this folder: `python runtime.py street.jpg road sky`; or from Python, by `Runtime`."""

from pathlib import Path

if __package__:
    from .{PARTS}.runtime import Runtime, main
else:
    from {PARTS}.runtime import Runtime, main

__all__ = ["Runtime"]

if __name__ == "__main__":
    main(Path(__file__).parent)
'''
ENDINGS = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
OPSET = 20  # of ONNX; 19 is the least that has what the models do, 20 names the sampling as OpenVINO reads it
LEAST_EQUAL = 0.999  # share of pixels whose best class must be the same
MOST_APART = 1e-3  # between two unit vectors of a phrase
PIECES = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"  # where CLIP's tokeniser cuts a text
MANY_WORDS = 50  # so many are put into all of a model's prompts; more would take minutes
NEARLY = 1e-3  # of its value two classes are apart at a pixel: rounding may turn them round
MOST_OFF = 1e-2  # between values, as a share of the largest; rounding makes up a thousandth of that
Graph = Callable[..., list[np.ndarray]]  # named arrays → arrays, as `runtime.open_graph` returns


class ClassMapGraph(nn.Module):
    """What is recorded of a model that emits maps of all classes."""

    inputs: tuple[str, ...] = ("pixels", "embeddings")
    outputs = ("logits", "kept")

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(self, pixels: Float[Tensor, "B 3 H W"], embeddings: Float[Tensor, "T D"]) -> tuple[Tensor, Tensor]:
        return self.maps_of(pixels, embeddings)

    def maps_of(
        self, pixels: Float[Tensor, "B 3 H W"], embeddings: Float[Tensor, "T D"], **choice: int
    ) -> tuple[Tensor, Tensor]:
        """What the model emits for words of one vector each."""
        classes = embeddings.shape[0]
        words = Words(embeddings, torch.arange(classes), torch.ones(classes, dtype=torch.bool))
        raw = self.model(pixels, words, **choice)
        return raw.logits, raw.kept  # pyright: ignore[reportAttributeAccessIssue]  # what this kind emits


class KeptClassMapGraph(ClassMapGraph):
    """What is recorded of a model that emits maps of the classes that it chooses."""

    inputs = (*ClassMapGraph.inputs, "keep")

    def forward(
        self, pixels: Float[Tensor, "B 3 H W"], embeddings: Float[Tensor, "T D"], keep: int
    ) -> tuple[Tensor, Tensor]:
        return self.maps_of(pixels, embeddings, keep=keep)


class QueryMaskGraph(nn.Module):
    """What is recorded of a model that emits masks of queries."""

    inputs = ("pixels", "embeddings", "owner", "seen")
    outputs = ("class_logits", "mask_logits")

    def __init__(self, model: Model):
        super().__init__()
        self.model = model

    def forward(
        self,
        pixels: Float[Tensor, "B 3 H W"],
        embeddings: Float[Tensor, "S D"],
        owner: Int[Tensor, " S"],
        seen: Bool[Tensor, " T"],
    ) -> tuple[Tensor, Tensor]:
        raw = self.model(pixels, Words(embeddings, owner, seen))
        return raw.class_logits, raw.mask_logits  # pyright: ignore[reportAttributeAccessIssue]  # likewise


class TextGraph(nn.Module):
    """What is recorded of the text tower: the tokens of every phrase in every prompt → one unit vector per phrase."""

    inputs = ("tokens",)
    outputs = ("embeddings",)

    def __init__(self, model: Model):
        super().__init__()
        self.clip = model.clip

    def forward(self, tokens: Int[Tensor, "S P L"]) -> Float[Tensor, "S D"]:
        vectors = F.normalize(encode_tokens(self.clip, tokens.flatten(0, 1)), dim=-1)
        return F.normalize(vectors.unflatten(0, tokens.shape[:2]).mean(dim=1), dim=-1)


AnyGraph = ClassMapGraph | QueryMaskGraph | TextGraph
EMITS = {ClassMaps: "class maps", QueryMasks: "query masks"}  # as model.json says it


Inputs = dict[str, Tensor | int]  # by name, in the graph's order


class Case(NamedTuple):
    """What both graphs are given."""

    model: Inputs
    text: Inputs


class Sizes(NamedTuple):
    """What a case has. Pictures for a model that takes a square are of its own size."""

    words: int
    height: int
    width: int
    pictures: int


TRACED = Sizes(words=5, height=256, width=341, pictures=2)  # none is 1 at any stride: it would be taken for a constant
CHECKED = (  # nothing as in the first, and all extremes: a grid at stride 32 with a side of 1, or both, one word, many
    Sizes(words=41, height=320, width=256, pictures=1),
    Sizes(words=1, height=32, width=32, pictures=1),
    Sizes(words=300, height=32, width=256, pictures=1),
    Sizes(words=45, height=256, width=32, pictures=2),
    Sizes(words=2, height=70, width=500, pictures=1),
    Sizes(words=7, height=600, width=100, pictures=3),
)


@as_if_alone()
@float32_by_default()
def export(
    segmenter: Segmenter, folder: Path, *, form: str, overwrite: bool = False, say: Callable[[str], None] = print
) -> list[Path]:
    """Record both graphs, check them against the model on other words and sizes, and only then write the folder.

    Args:
        segmenter: On the processor, in full precision.
        form: `onnx`, `openvino` or `torch`.
        overwrite: Replace the folder if it exists.
        say: Gets one line about each graph.

    Returns:
        The files written.

    Raises:
        ValueError: An unknown format, a package that is missing, a folder in the way, or a graph that differs from the
            model.
    """
    check_form(form)
    model, folder = segmenter.model, expanded(folder)
    if folder.exists() and not (overwrite and folder.is_dir()):
        raise ValueError(
            f"{str(folder)!r} exists. Choose another name, or let it be replaced (--overwrite), if it is a folder."
        )
    if segmenter.device.type != "cpu" or segmenter.precision != "float32":
        raise ValueError(
            f"The model is on {segmenter.device}, in {segmenter.precision}; it is exported from the cpu in float32."
        )
    check_writable(folder.parent)
    graphs = {"model": graph_of(model), "text": TextGraph(model)}
    traced, checked = example(segmenter, TRACED), [example(segmenter, sizes) for sizes in CHECKED]
    with whole_folder(folder) as temporary, torch.no_grad():
        for name, graph in graphs.items():
            start, file = time.monotonic(), temporary / f"{name}{ENDINGS[form]}"
            write_graph(record(graph, getattr(traced, name)), file, graph)
            megabytes = sum(path.stat().st_size for path in temporary.glob(f"{name}.*")) / 1e6
            found = check(graph, open_graph(file, graph), [getattr(case, name) for case in checked])
            say(f"{file.name}  {megabytes:.1f} MB, {time.monotonic() - start:.0f} s; {found}")
        if form != "torch":
            write_runtime(temporary)
            tokenizer().save(str(temporary / "tokenizer.json"))
        about = describe(segmenter, {name: f"{name}{ENDINGS[form]}" for name in graphs})
        (temporary / "model.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def write_runtime(folder: Path) -> None:
    """Write `runtime.py` into a folder, and what it is made of into one within."""
    parts = folder / PARTS
    parts.mkdir()
    for name in COPIED:
        shutil.copy(Path(runtime.__file__).with_name(name), parts)
    (folder / "runtime.py").write_text(DOOR, encoding="utf-8")


def check_form(form: str) -> None:
    """Raise a ValueError if a format is unknown, or can't be written here."""
    if form not in NEEDED:
        raise ValueError(f"The format came as {form!r}; expected one of {', '.join(NEEDED)}.")
    packages, extra = NEEDED[form]
    missing = [package for package in packages if find_spec(package) is None]
    if missing:
        raise ValueError(f"The format {form} needs {', '.join(missing)}. Install: pip install 'wordmask[{extra}]'")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Give a temporary folder beside `folder`, which it replaces when the block ends well; else it is removed."""
    with unfinished_folder(folder) as temporary:
        yield temporary
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)


def graph_of(model: Model) -> AnyGraph:
    """What is recorded of a model, which depends on what it emits."""
    if model.emits is QueryMasks:
        return QueryMaskGraph(model)
    return KeptClassMapGraph(model) if model.keep_steps else ClassMapGraph(model)


# Recording ------------------------------------------------------------------------------------------------------------


def example(segmenter: Segmenter, sizes: Sizes) -> Case:
    """Some pictures and words, as the graphs take them."""
    model, wanted, words = segmenter.model, segmenter.model.image_input, sizes.words
    names = [*MATERIALS, *(thing.name for thing in COMPOSITIONS)][:words]
    height, width = (wanted.square, wanted.square) if wanted.square else (sizes.height, sizes.width)
    pixels = torch.stack([drawn(height, width, number, wanted) for number in range(sizes.pictures)])
    templates = model.templates if words <= MANY_WORDS else model.templates[:1]
    table = token_table(names, templates, spare=words % 2)
    embeddings = TextGraph(model)(table).detach()
    case: Inputs = {"pixels": pixels, "embeddings": embeddings}
    if model.emits is ClassMaps and not model.keep_steps:
        return Case(case, {"tokens": table})
    if model.emits is ClassMaps:
        return Case(case | {"keep": max(1, kept_of(model.keep_steps, words) - words % 2)}, {"tokens": table})
    owner = torch.arange(words) * 2 // 3  # every other class has two names
    return Case(case | {"owner": owner, "seen": torch.arange(int(owner[-1]) + 1) % 2 == 0}, {"tokens": table})


def token_table(names: list[str], templates: tuple[str, ...], *, spare: int) -> Int[Tensor, "S P L"]:
    """The tokens of every name in every template, padded with zeros to the longest and `spare` more."""
    prompts = [template.format(name) for name, template in product(names, templates)]
    rows = [torch.tensor(ids) for ids in tokenize(prompts)]
    padded = F.pad(nn.utils.rnn.pad_sequence(rows, batch_first=True), (0, spare))  # (S·P, L)
    return padded.unflatten(0, (len(names), len(templates)))


def drawn(height: int, width: int, number: int, wanted: ImageInput) -> Float[Tensor, "3 H W"]:
    """A generated scene, as a model wants pixels, but of a size of its own where the model takes any."""
    scene = draw_scene(FIRST["demo"] + number, World(height, width)).rgb
    edges = (wanted.shortest_edge, wanted.longest_edge) if wanted.square else (min(height, width), max(height, width))
    return prepare(scene, ImageInput(*edges, wanted.square, wanted.mean, wanted.std))[0]


def record(graph: AnyGraph, case: Inputs) -> ExportedProgram:
    """Record a graph with every size dynamic that may be: what turns out to be fixed (a square input) is left so.

    Strict, as only then `len` of a tensor is not taken for a constant. The recorder asks for grids of two pixels at
    least, since it takes a size of 1 for a constant; nothing here does, so a side of one stride is allowed again.
    """
    sizes = {}
    for name, value in case.items():
        axes = enumerate(value.shape) if isinstance(value, Tensor) else ()
        sizes[name] = {axis: Dim.STATIC if size == 1 else Dim.AUTO for axis, size in axes} or Dim.DYNAMIC
    program = torch.export.export(graph.eval(), tuple(case.values()), dynamic_shapes=sizes, strict=True)
    for size, allowed in program.range_constraints.items():
        if allowed.lower == 2 * PADDING:
            program.range_constraints[size] = type(allowed)(PADDING, allowed.upper)
    return program


def write_graph(program: ExportedProgram, file: Path, graph: AnyGraph) -> None:
    """Write a recorded graph in the format that the file's ending says."""
    if file.suffix == ".pt2":
        torch.export.save(program, file)
        return
    written = file.with_suffix(".onnx")
    made = torch.onnx.export(
        program,
        input_names=list(graph.inputs),
        output_names=list(graph.outputs),
        opset_version=OPSET,
        custom_translation_table=translations(),
        optimize=False,  # it takes + 1e-8 for + 0
        dynamo=True,
        verbose=False,
    )
    assert made is not None
    made.save(written, external_data=False)
    if file.suffix == ".xml":
        import openvino  # pyright: ignore[reportMissingImports]  # an extra

        openvino.save_model(openvino.convert_model(written), file, compress_to_fp16=False)
        written.unlink()


def translations() -> dict[Callable, Callable]:
    """What torch's exporter to ONNX lacks: attention over more than four axes, and sorting that keeps the order of
    equals."""
    import onnxscript

    op: Any = onnxscript.opset20  # its own types know no mixture of attributes and values

    def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
        axes = list(range(len(query.shape)))
        axes[-1], axes[-2] = axes[-2], axes[-1]
        logits = op.Mul(
            op.MatMul(query, op.Transpose(key, perm=axes)), op.Constant(value_float=scale or query.shape[-1] ** -0.5)
        )
        if attn_mask is not None:
            logits = op.Add(logits, attn_mask)
        return op.MatMul(op.Softmax(logits, axis=-1), value)

    def sort(x, stable=True, dim=-1, descending=False):
        size = op.Gather(op.Shape(x), op.Constant(value_ints=[dim]), axis=0)
        return op.TopK(x, size, axis=dim, largest=int(descending), sorted=1)  # of equals, the first comes first

    return {torch.ops.aten.scaled_dot_product_attention.default: attention, torch.ops.aten.sort.stable: sort}


def tokenizer():
    """CLIP's tokeniser for those who have no torch; it takes text that is cleaned and in lower case, as `runtime`
    does."""
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    ids, pairs = token_tables()
    made = Tokenizer(models.BPE(vocab=ids, merges=pairs, end_of_word_suffix="</w>"))
    cut = pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True)
    made.add_special_tokens(["<start_of_text>", "<end_of_text>"])
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return made


def describe(segmenter: Segmenter, files: dict[str, str]) -> JsonObject:
    """What a runtime must know of a model."""
    model, wanted = segmenter.model, segmenter.model.image_input
    (ids,) = tokenize([""])
    return {
        "model": segmenter.name,
        "family": model.family,
        "emits": EMITS[model.emits],
        "files": files,
        "tasks": [task for task in model.tasks if task != "instance"],
        "synonyms": model.synonyms,
        "templates": list(model.templates),
        "start": ids[0],
        "end": ids[-1],
        "most_tokens": CONTEXT_LENGTH,
        "input": {**asdict(wanted), "stride": PADDING},
        "keep": [list(step) for step in model.keep_steps] or None,
        "overlap": DEFAULT_OVERLAP,
        "stuff": sorted(stuff_words()),
        "seen": sorted(segmenter.training_names),
        "vocabularies": builtin_names(),
    }


# Checking -------------------------------------------------------------------------------------------------------------


def open_graph(file: Path, graph: AnyGraph) -> Graph:
    """A written graph → a function from named arrays to a list of arrays."""
    if file.suffix != ".pt2":
        return runtime.open_graph(file)
    # they would rule out what works: one word for one picture
    program = torch.export.load(file).module(check_guards=False)

    @torch.no_grad()
    def run(**inputs: np.ndarray) -> list[np.ndarray]:
        given = (torch.from_numpy(inputs[name]) if inputs[name].ndim else int(inputs[name]) for name in graph.inputs)
        return [output.numpy() for output in as_tuple(program(*given))]

    return run


def as_tuple(outputs: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def check(graph: AnyGraph, written: Graph, cases: list[Inputs]) -> str:
    """Compare a graph with what was written of it on every case; say how far they are apart at most, and on what.

    Raises:
        ValueError: Too far, on any of them.
    """
    if isinstance(graph, TextGraph):
        apart = max(compare_words(graph, written, case) for case in cases)
        found = f"vectors at most {apart:.1e} apart from PyTorch's"
    else:
        compared = [compare(graph, written, case) for case in cases]
        equal, apart = min(one.equal for one in compared), max(one.apart for one in compared)
        found = f"{equal:.3%} of pixels have PyTorch's class, values at most {apart:.1e} apart"
    first = graph.inputs[0]
    return f"{found}, on {first} {', '.join(described('', case[first]).strip() for case in cases)}"


class Compared(NamedTuple):
    """How like the model a graph is: the share of pixels with the same class, and the largest difference of values."""

    equal: float
    apart: float


def compare(graph: AnyGraph, written: Graph, case: Inputs) -> Compared:
    """Run a graph and what was written of it on the same inputs.

    Raises:
        ValueError: Too few pixels have the same class, not counting those where two classes are nearly equal; or values
            are too far apart.
    """
    ours, theirs = outputs_of(graph, written, case)
    classes = len(case["embeddings"])  # pyright: ignore[reportArgumentType]  # no number
    scores, others = class_scores(graph, ours, classes), class_scores(graph, theirs, classes)
    highest, best = scores.max(axis=1, keepdims=True), others.argmax(axis=1)[:, None]
    gap = highest - np.take_along_axis(scores, best, axis=1)
    alike, equal = float((gap <= NEARLY * np.abs(highest)).mean()), float((scores.argmax(axis=1) == best[:, 0]).mean())
    pairs = [(scores, others)] if isinstance(graph, ClassMapGraph) else list(zip(ours, theirs, strict=True))
    found = [furthest(a, b) for a, b in pairs]
    apart, share = max(one for one, _ in found), max(one for _, one in found)
    if not (alike >= LEAST_EQUAL and share <= MOST_OFF):
        raise ValueError(
            f"The exported graph differs: {equal:.2%} of pixels have the same class, and values are up to {apart:.2g} "
            f"apart, on {sizes_of(case)}. Nothing was written. {REPORT}"
        )
    return Compared(equal, apart)


def furthest(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """How far values are apart at most, and as a share of the largest; infinitely, where one of theirs is no number.
    What only one of them has (classes that just weren't kept) is left out."""
    if np.isnan(theirs).any() or np.isposinf(theirs).any():
        return float("inf"), float("inf")
    both = np.isfinite(ours) & np.isfinite(theirs)
    apart = float(np.abs(ours[both] - theirs[both]).max(initial=0))
    return apart, apart / max(float(np.abs(ours[both]).max(initial=0)), 1e-9)


def compare_words(graph: TextGraph, written: Graph, case: Inputs) -> float:
    """How far the vectors of phrases are apart at most.

    Raises:
        ValueError: Too far.
    """
    (ours,), (theirs,) = outputs_of(graph, written, case)
    apart = float(np.linalg.norm(ours - theirs, axis=1).max())
    if not apart <= MOST_APART:
        raise ValueError(
            f"The exported words differ: vectors are up to {apart:.2g} apart, on {sizes_of(case)}. "
            f"Nothing was written. {REPORT}"
        )
    return apart


def outputs_of(graph: AnyGraph, written: Graph, case: Inputs) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """What a graph and what was written of it make of the same inputs.

    Raises:
        ValueError: They are not of the same shapes, or what was written can't take them.
    """
    ours = [output.numpy() for output in as_tuple(graph(*case.values()))]
    try:
        theirs = written(**{name: np.asarray(value) for name, value in case.items()})
    except Exception as error:  # every package has its own
        raise ValueError(
            f"The exported graph can't take {sizes_of(case)}: {error}. Nothing was written. {REPORT}"
        ) from None
    shapes = [array.shape for array in ours], [array.shape for array in theirs]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"The exported graph differs: its outputs have the shapes {shapes[1]}, expected {shapes[0]}, on "
            f"{sizes_of(case)}. Nothing was written. {REPORT}"
        )
    return ours, theirs


def sizes_of(case: Inputs) -> str:
    """The sizes of a case, in words."""
    return ", ".join(described(name, value) for name, value in case.items())


def described(name: str, value: Tensor | int) -> str:
    """An input: its size, or the number that it is."""
    return f"{name} {'×'.join(map(str, value.shape))}" if isinstance(value, Tensor) else f"{name} {value}"


REPORT = "Versions of torch and onnx may matter: report them, please."


def class_scores(graph: AnyGraph, raw: list[np.ndarray], classes: int) -> np.ndarray:
    """What is said of every class at every pixel, (B, T, h, w); nothing of those that were not kept."""
    if isinstance(graph, ClassMapGraph):
        logits, kept = raw
        scores = np.full((len(logits), classes, *logits.shape[2:]), -np.inf, np.float32)
        np.put_along_axis(scores, kept[:, :, None, None], logits, axis=1)
        return scores
    class_logits, mask_logits = (torch.from_numpy(array) for array in raw)
    sums = torch.einsum("bqt,bqhw->bthw", class_logits.softmax(dim=-1)[..., :-1], mask_logits.sigmoid())
    return sums.numpy()
