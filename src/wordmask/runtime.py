"""Run an exported model: a picture and words → labels, names and scores. Needs no torch.

`wordmask export` puts a copy beside the graphs, with the files it imports, and a `runtime.py` that opens it: `python
runtime.py street.jpg road "car, automobile" sky`. Nothing else of wordmask is needed; the packages are numpy, pillow,
tokenizers, ftfy, and onnxruntime or openvino. T classes, S phrases, D width of CLIP's space, H W pixels.
"""

import argparse
import html
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

import ftfy
import numpy as np
from tokenizers import Tokenizer

from .array_readings import ArrayFrame, Found, checked, read_panoptic, read_semantic, resize, sigmoid, softmax
from .pixels import ImageInput, PlainPicture, input_size, read_rgb, resize_picture
from .words import WordList, means_builtin, print_doubt, read_words, refuse_files, same_phrase, warn_of_doubt

Result = TypeVar("Result")


class Description(NamedTuple):
    """What model.json says of a model, as far as it is needed here."""

    emits: str  # "class maps" or "query masks"
    files: dict[str, str]  # the graphs' names: "model" and "text"
    tasks: list[str]  # the first is done if none is asked for
    synonyms: str  # "each" name of a class has a vector, or the "first" alone
    templates: list[str]  # the prompts that a phrase is put into
    start: int  # token before a prompt
    end: int  # token after it
    most_tokens: int  # both included
    input: ImageInput
    keep: list[tuple[int, int]] | None  # from so many classes on, so many are refined; None: all
    overlap: float  # of panoptic masks, if none is asked for
    stuff: frozenset[str]  # names as `same_phrase` writes them, of what is not counted, and of what training saw
    seen: frozenset[str]
    vocabularies: list[str]  # names that mean a list of words to wordmask, which is not here


class Runtime:
    """An exported model: `folder` is what `wordmask export` wrote, as onnx or openvino.

    Raises:
        ValueError: A file is missing there, damaged, or of another version.
    """

    def __init__(self, folder: Path | str):
        self.about = read_description(Path(folder, "model.json"))
        self.tokenizer = opened(Path(folder, "tokenizer.json"), lambda file: Tokenizer.from_file(str(file)))
        self.model, self.text = (opened(Path(folder, self.about.files[name]), open_graph) for name in ("model", "text"))
        self.vectors: dict[str, np.ndarray] = {}

    def __call__(
        self,
        picture: PlainPicture,
        words: WordList | str | Path | Iterable[str],
        *,
        task: str | None = None,
        keep: int | None = None,
        overlap: float | None = None,
    ) -> Found:
        """Find what words name in a picture. Pictures, words and settings mean what they do to a `Segmenter`.

        Raises:
            ValueError: A picture that can't be read, words that make no sense, or settings that the model can't obey.
        """
        asked, task = self.read_words(words), task or self.about.tasks[0]
        warn_of_doubt(asked, words, self)
        if task not in self.about.tasks:
            raise ValueError(f"task came as {task!r}; this model does {' and '.join(self.about.tasks)}.")
        if keep is not None and not (isinstance(keep, int) and keep >= 1 and self.about.keep):
            raise ValueError(f"keep came as {keep!r}; expected a number, at least 1, of a model that chooses classes.")
        if overlap is not None and not (isinstance(overlap, int | float) and 0 <= overlap <= 1 and task == "panoptic"):
            raise ValueError(f"overlap came as {overlap!r}; expected a share in [0, 1], of the task panoptic.")
        pixels, frame = self.prepare(read_rgb(picture))
        groups = [entry.names if self.about.synonyms == "each" else entry.names[:1] for entry in asked]
        embeddings = np.concatenate([self.encode(same_phrase(name)) for group in groups for name in group])  # (S, D)
        if self.about.emits == "class maps":
            most = min(keep or self.default_keep(len(asked)), len(asked))
            choice = {"keep": np.array(most)} if self.about.keep else {}
            logits, kept = checked(self.model(pixels=pixels, embeddings=embeddings, **choice))
            return read_semantic(sigmoid(logits[0]), kept[0], frame, asked.names)
        owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])  # (S,)
        seen = np.array([entry.is_among(self.about.seen) for entry in asked])  # (T,)
        raw = checked(self.model(pixels=pixels, embeddings=embeddings, owner=owner, seen=seen))
        probs, masks = softmax(raw[0][0]), raw[1][0]  # (Q, T + 1), void last; (Q, h, w)
        if task == "semantic":
            return read_semantic(masks, np.arange(len(asked)), frame, asked.names, weights=probs[:, :-1].T)
        things, overlap = [entry.thing for entry in asked], self.about.overlap if overlap is None else overlap
        return read_panoptic(probs, masks, frame, names=asked.names, things=things, overlap=overlap)

    def read_words(self, words: WordList | str | Path | Iterable[str]) -> WordList:
        """Read words in any form that `wordmask` takes, but the name of a vocabulary that comes with it."""
        if isinstance(words, str) and means_builtin(words, self.about.vocabularies):
            raise ValueError(f"{words.strip()!r} means a list that only wordmask has. Name its words, or a file.")
        return read_words(words, self.about.stuff)

    def default_keep(self, classes: int) -> int:
        """How many of so many classes are refined."""
        return next((most for least, most in reversed(self.about.keep or []) if classes >= least), classes)

    def encode(self, phrase: str) -> np.ndarray:
        """A phrase → its unit vector (1, D), remembered."""
        if phrase not in self.vectors:
            prompts = [template.format(phrase) for template in self.about.templates]
            cleaned = [same_phrase(html.unescape(html.unescape(ftfy.fix_text(prompt)))) for prompt in prompts]
            rows = [[self.about.start, *self.tokenizer.encode(text).ids, self.about.end] for text in cleaned]
            longest = max(map(len, rows))
            if longest > self.about.most_tokens:
                raise ValueError(
                    f"{phrase[:60]!r} is too long: CLIP reads {self.about.most_tokens} tokens. Use a shorter phrase."
                )
            tokens = np.zeros((1, len(rows), longest), np.int64)
            for number, row in enumerate(rows):
                tokens[0, number, : len(row)] = row
            self.vectors[phrase] = self.text(tokens=tokens)[0]
        return self.vectors[phrase]

    def prepare(self, rgb: np.ndarray) -> tuple[np.ndarray, ArrayFrame]:
        """RGB (H, W, 3) → pixels as the model wants them, (1, 3, H, W), and how to get back."""
        wanted, original = self.about.input, (rgb.shape[0], rgb.shape[1])
        small, (height, width) = resize_picture(rgb, wanted), input_size(*original, wanted)
        mean, std = np.array([wanted.mean, wanted.std], np.float32)
        pixels = ((small - mean) / std).transpose(2, 0, 1)
        if wanted.square is not None:
            return resize(resize(pixels, height, 1), width, 2)[None], ArrayFrame(original)
        resized = small.shape[0], small.shape[1]
        edges = (0, 0), (0, height - resized[0]), (0, width - resized[1])
        return np.pad(pixels, edges)[None], ArrayFrame(original, resized, (height, width))


def opened(file: Path, read: Callable[[Path], Result]) -> Result:
    """What `read` makes of a file of an exported model."""
    if not file.is_file():
        raise ValueError(f"There is no file {str(file)!r}. Copy the whole folder that wordmask export wrote.")
    try:
        return read(file)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # every package has its own
        raise ValueError(f"The file {str(file)!r} is damaged: {error}. Copy it again, or export anew.") from None


def read_description(file: Path) -> Description:
    content = opened(file, lambda file: dict(json.loads(file.read_text(encoding="utf-8"))))
    missing = [name for name in Description._fields if name not in content]
    if missing:
        raise ValueError(f"{str(file)!r} lacks {', '.join(missing)}. Use the runtime.py beside it, or export anew.")
    wanted = [content["input"][name] for name in ("shortest_edge", "longest_edge", "square", "mean", "std")]
    content |= {"input": ImageInput(*wanted)} | {name: frozenset(content[name]) for name in ("stuff", "seen")}
    return Description(*(content[name] for name in Description._fields))


def open_graph(file: Path) -> Callable[..., list[np.ndarray]]:
    """A graph → a function from named arrays to a list of arrays, in full precision, on the processor."""
    if file.suffix == ".xml":
        import openvino  # pyright: ignore[reportMissingImports]  # this or onnxruntime is needed

        compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda **inputs: list(compiled(inputs).values())
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # errors: it warns of what it can't fold
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda **inputs: [np.asarray(output) for output in session.run(None, inputs)]


def main(folder: Path) -> None:
    """Run the model of a folder on what the command line names, and print the regions found."""
    parser = argparse.ArgumentParser(description="Find what words name in a picture, by the model in this folder.")
    parser.add_argument("picture", metavar="PICTURE", help="a file")
    parser.add_argument("words", metavar="WORD", nargs="*", help='what to look for: road "car, automobile" sky')
    parser.add_argument("--words-file", type=Path, metavar="FILE", help="a file of them instead: one a line, or json")
    parser.add_argument("--task", help="semantic or panoptic, as far as the model does them")
    given = parser.parse_intermixed_args()  # options may stand among the words
    try:
        if given.words and given.words_file:
            raise ValueError("The words came in two ways: WORD... and --words-file. Give them in one.")
        refuse_files(given.words)
        segment = Runtime(folder)
        words = segment.read_words(given.words_file or given.words)
        print_doubt(words)
        found = segment(given.picture, words, task=given.task)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    if not found.regions:
        print("note: none of the words was found", file=sys.stderr)
    for region in found.regions:
        print(f"{region.name}  {region.area / found.ids.size:.1%}  {region.score:.2f}")
