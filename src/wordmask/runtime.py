"""Run an exported model: a picture and words → labels, names and scores. Needs no torch, and nothing else of wordmask.

`wordmask export` puts a copy beside the graphs: `python runtime.py street.jpg road "car, automobile" sky`. It needs
numpy, pillow, tokenizers, ftfy, and onnxruntime or openvino. T classes, S phrases, K or Q maps, H W pixels, h w a grid.
"""

import html
import json
import re
import sys
from pathlib import Path
from typing import NamedTuple

import ftfy
import numpy as np
from PIL import Image, ImageOps
from tokenizers import Tokenizer

STRIP_ENTRIES = 2**22  # of maps restored at a time: 16 MB
KIND_MARK = re.compile(r"\s*\[(stuff|thing)\]\s*$", re.IGNORECASE)
Region = NamedTuple("Region", [("id", int), ("name", str), ("label", int), ("score", float), ("area", int)])  # noqa: UP014


class Found(NamedTuple):
    """Labels (H, W), -1 where there is none; ids of regions (H, W), 0 where there is none; regions, largest first,
    areas in pixels."""

    labels: np.ndarray
    ids: np.ndarray
    regions: list[Region]


class Runtime:
    """An exported model: `folder` is what `wordmask export` wrote, as onnx or openvino."""

    def __init__(self, folder: Path | str):
        self.about = json.loads(Path(folder, "model.json").read_text(encoding="utf-8"))
        self.tokenizer = Tokenizer.from_file(str(Path(folder, "tokenizer.json")))
        self.model, self.text = (open_graph(Path(folder, self.about["files"][name])) for name in ("model", "text"))
        self.stuff, self.seen, self.vectors = set(self.about["stuff"]), set(self.about["seen"]), {}

    def __call__(
        self, picture, words: list[str], *, task: str | None = None, keep: int | None = None, overlap: float = 0.8
    ) -> Found:
        """Find what words name in a picture, a path or a PIL image. Settings mean what they do to `wordmask segment`.

        Raises:
            ValueError: No words, a blank or too long one, or a task that the model can't do.
        """
        task, classes = task or self.about["tasks"][0], [self.read_word(word) for word in words]
        if not classes or task not in self.about["tasks"]:
            raise ValueError(
                f"Came: {len(classes)} words, task {task!r}; expected a word or more, and "
                f"{' or '.join(self.about['tasks'])}."
            )
        groups = [names if self.about["synonyms"] == "each" else names[:1] for names, _ in classes]
        names, things = [group[0] for group in groups], np.array([thing for _, thing in classes])
        pixels, frame = self.prepare(read_picture(picture))
        given = {
            "pixels": pixels,
            "embeddings": np.concatenate([self.encode(same_phrase(name)) for group in groups for name in group]),
        }
        if self.about["family"] == "err-seg":
            own = next(most for least, most in reversed(self.about["keep"]) if len(names) >= least)
            logits, kept = self.model(**given, keep=np.array(min(keep or own, len(names))))
            return read_semantic(sigmoid(logits[0]), kept[0], frame, names)
        owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        seen = np.array([any(same_phrase(name) in self.seen for name in every) for every, _ in classes])
        class_logits, mask_logits = (output[0] for output in self.model(**given, owner=owner, seen=seen))
        probs = np.exp(class_logits - class_logits.max(axis=1, keepdims=True))
        probs /= probs.sum(axis=1, keepdims=True)  # (Q, T + 1), void last
        if task == "semantic":
            return read_semantic(mask_logits, np.arange(len(names)), frame, names, weights=probs[:, :-1].T)
        return read_panoptic(probs, mask_logits, frame, names, things=things, overlap=overlap)

    def read_word(self, word: str) -> tuple[list[str], bool]:
        """A class as a user writes it → its names, and whether it is a thing."""
        mark, names = KIND_MARK.search(word), [" ".join(name.split()) for name in KIND_MARK.sub("", word).split(",")]
        if not all(names):
            raise ValueError(f"A name in {word!r} is blank. Write a word there, or leave out the comma.")
        return names, mark[1].lower() == "thing" if mark else same_phrase(names[0]) not in self.stuff

    def encode(self, phrase: str) -> np.ndarray:
        """A phrase → its unit vector (1, D), remembered."""
        if phrase not in self.vectors:
            prompts = [template.format(phrase) for template in self.about["templates"]]
            cleaned = [same_phrase(html.unescape(html.unescape(ftfy.fix_text(prompt)))) for prompt in prompts]
            rows = [[self.about["start"], *self.tokenizer.encode(text).ids, self.about["end"]] for text in cleaned]
            longest = max(map(len, rows))
            if longest > self.about["most_tokens"]:
                raise ValueError(
                    f"{phrase[:60]!r} is too long: CLIP reads {self.about['most_tokens']} tokens. Use a shorter phrase."
                )
            tokens = np.array([[row + [0] * (longest - len(row)) for row in rows]], np.int64)
            self.vectors[phrase] = self.text(tokens=tokens)[0]
        return self.vectors[phrase]

    def prepare(self, rgb: Image.Image) -> tuple[np.ndarray, "Frame"]:
        """A picture → pixels (1, 3, H, W) as the model wants them, and how to get back."""
        wanted, (width, height) = self.about["input"], rgb.size
        short, scale = wanted["shortest_edge"], wanted["shortest_edge"] / min(height, width)
        sides = (short, scale * width) if height < width else (scale * height, short)
        resized = tuple(max(1, int(side * min(1.0, wanted["longest_edge"] / max(sides)) + 0.5)) for side in sides)
        small = np.asarray(rgb.resize(resized[::-1], Image.Resampling.BILINEAR), np.float32)
        pixels = ((small - np.float32(wanted["mean"])) / np.float32(wanted["std"])).transpose(2, 0, 1)
        if wanted["square"]:
            return resize(resize(pixels, wanted["square"], 1), wanted["square"], 2)[None], Frame((height, width))
        padded = tuple(-(-side // wanted["stride"]) * wanted["stride"] for side in resized)
        edge = [(0, 0), (0, padded[0] - resized[0]), (0, padded[1] - resized[1])]
        return np.pad(pixels, edge)[None], Frame((height, width), resized, padded)


class Frame(NamedTuple):
    """The sizes of a picture, (height, width): as it was; resized, and padded, both None if it was stretched."""

    original: tuple[int, int]
    resized: tuple[int, int] | None = None
    padded: tuple[int, int] | None = None

    def strips(self, maps: np.ndarray, most: int):
        """Bring maps (K, h, w) back to the picture, some rows at a time: (rows, maps). So many maps, `most`, are in
        memory at once."""
        tall = self.restore(maps, 0)
        many = max(1, STRIP_ENTRIES // (max(1, most) * max(self.original[1], self.padded[1] if self.padded else 0)))
        return ((slice(y, y + many), self.restore(tall[:, y : y + many], 1)) for y in range(0, self.original[0], many))

    def restore(self, maps: np.ndarray, axis: int) -> np.ndarray:
        if self.padded:
            maps = np.take(resize(maps, self.padded[axis], axis + 1), np.arange(self.resized[axis]), axis + 1)
        return resize(maps, self.original[axis], axis + 1)


def read_semantic(
    maps: np.ndarray, classes: np.ndarray, frame: Frame, names: list[str], weights: np.ndarray | None = None
) -> Found:
    """Label every pixel with its most probable class: of maps of probabilities, or sums of mask probabilities by
    `weights` (T, Q)."""
    labels, confidence = np.empty(frame.original, np.int32), np.empty(frame.original, np.float32)
    for rows, strip in frame.strips(maps, max(len(maps), len(classes))):
        probs = strip if weights is None else np.tensordot(weights, sigmoid(strip), 1)
        labels[rows], confidence[rows] = classes[probs.argmax(axis=0)], np.minimum(probs.max(axis=0), 1)
    areas, sums = np.bincount(labels.ravel()), np.bincount(labels.ravel(), confidence.ravel())
    order, table = (
        [label for label in np.argsort(-areas, kind="stable").tolist() if areas[label]],
        np.zeros(len(names), np.int32),
    )
    table[order] = np.arange(1, len(order) + 1)
    regions = [
        Region(n, names[label], label, float(sums[label] / areas[label]), int(areas[label]))
        for n, label in enumerate(order, 1)
    ]
    return Found(labels, table[labels], regions)


def read_panoptic(probs, mask_logits, frame: Frame, names: list[str], *, things: np.ndarray, overlap: float) -> Found:
    """Give every pixel to the query that is surest of it; keep the queries that win most of their masks; stuff merges
    by class."""
    kept = np.flatnonzero(probs.argmax(axis=1) != len(names))
    classes, scores, count = probs.argmax(axis=1)[kept], probs.max(axis=1)[kept], len(kept)
    winner = np.full(frame.original, -1)  # -1 outside the winner's own mask
    covered, won, taken, evidence = np.zeros((4, count))
    for rows, strip in frame.strips(mask_logits[kept], count) if count else ():
        covers, masks = strip >= 0, sigmoid(strip) * scores[:, None, None]
        best = masks.argmax(axis=0)
        inside = np.take_along_axis(covers, best[None], 0)[0]
        covered += covers.sum(axis=(1, 2))
        won += np.bincount(best.ravel(), minlength=count)
        taken += np.bincount(best[inside], minlength=count)
        evidence += np.bincount(best[inside], masks.max(axis=0)[inside], count)
        winner[rows] = np.where(inside, best, -1)
    groups: dict[tuple, list[int]] = {}
    for query in np.flatnonzero((taken > 0) & (won >= overlap * covered)).tolist():
        groups.setdefault((classes[query], things[classes[query]] and query), []).append(query)
    table, regions = np.zeros(count + 1, np.int32), []  # the last entry is for -1
    for number, queries in enumerate(sorted(groups.values(), key=lambda group: -taken[group].sum()), 1):
        table[queries], label, area = number, int(classes[queries[0]]), int(taken[queries].sum())
        regions.append(Region(number, names[label], label, float(evidence[queries].sum() / area), area))
    return Found(np.array([-1, *(region.label for region in regions)], np.int32)[table[winner]], table[winner], regions)


def resize(maps: np.ndarray, size: int, axis: int) -> np.ndarray:
    """Resize one axis bilinearly, without antialiasing; the corners of pixels are aligned."""
    place = np.clip((np.arange(size) + 0.5) * (maps.shape[axis] / size) - 0.5, 0, None)
    low = place.astype(int)
    share = (place - low).astype(np.float32).reshape([-1 if n == axis else 1 for n in range(maps.ndim)])
    return maps.take(low, axis) * (1 - share) + maps.take(np.minimum(low + 1, maps.shape[axis] - 1), axis) * share


def sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):  # small values count: where no mask covers a pixel, the least unlikely one wins it
        return 1 / (1 + np.exp(-x))


def same_phrase(phrase: str) -> str:
    return " ".join(phrase.split()).lower()


def read_picture(picture) -> Image.Image:
    """Upright RGB; transparency is laid on white."""
    image = ImageOps.exif_transpose(picture if isinstance(picture, Image.Image) else Image.open(picture)).convert(
        "RGBA"
    )
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def open_graph(file: Path):
    """A graph → a function from named arrays to a list of arrays, in full precision, on the processor."""
    if file.suffix == ".xml":
        import openvino

        compiled = openvino.Core().compile_model(file, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return lambda **inputs: list(compiled(inputs).values())
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)  # errors: it warns of what it can't fold
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return lambda **inputs: session.run(None, inputs)


if __name__ == "__main__":
    photo, *asked = sys.argv[1:] or sys.exit(f"usage: python {sys.argv[0]} PICTURE WORD...")
    result = Runtime(Path(__file__).parent)(photo, asked)
    for region in result.regions:
        print(f"{region.name}  {region.area / result.ids.size:.1%}  {region.score:.2f}")
