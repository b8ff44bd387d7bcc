"""Whatever people bring: every input of a batch is a result, a named failure or a named skip, and the numbers agree."""

import csv
import gzip
import io
import json
import os
import random
import tarfile
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from conftest import asked_for, colourful
from wordmask.batch.inputs import Collection, look_through
from wordmask.batch.job import BatchJob, run_job, work
from wordmask.image import read_picture
from wordmask.model_choice import ModelChoice
from wordmask.segmentation import Segmentation
from wordmask.settings import Settings, of_known_labels
from wordmask.vocabulary import Vocabulary

WORDS = Vocabulary.of(["sky", "tree"])
# as people, other systems and attackers name things; a number goes before each, which `%s` is
NAMES = (
    "%s",
    "%s with spaces ",
    " %s",
    "%s.copy",
    "%s\nline",
    "%s\x1b[31m",
    "%s[1]",
    "%s*",
    "..%s",
    "%sé",
    "%s\udcff",
    "%s\\b",
    "%s" + "ü" * 118,
    "images",
    "labels%s",
)
ENDINGS = (".png", ".PNG", ".jpg", ".bmp", ".webp", ".tif", ".gif", ".ppm")
NO_ENDINGS = (".txt", ".json", "", ".csv", ".zip", ".CR2", ".svg", ".jpg~")
TRUTH = tuple[int, int, int]  # results, failures, skips


class Counted:
    """What was made, counted while it is made."""

    def __init__(self, seed: int, root: Path):
        self.random, self.root, self.number, self.links = random.Random(seed), root, 0, 0
        self.outside = root / "outside"
        self.outside.mkdir(parents=True)
        (self.outside / "far.png").write_bytes(encoded(".png"))
        (self.outside / "notes.txt").write_text("x")
        (self.outside / "bad.jpg").write_text("x")

    def name(self, ending: str) -> str:
        self.number += 1
        name = self.random.choice(NAMES)
        name = name % self.number if "%s" in name else f"{name}{self.number}"
        return (name.lstrip(".") if name.startswith(".") else name) + ending

    def folder(self, path: Path, deep: int = 0, done: tuple[tuple[Path, TRUTH], ...] = ()) -> TRUTH:
        """Fill a folder; return what it holds."""
        path.mkdir(parents=True)
        total = Counter()
        for _ in range(self.random.randint(1, 5)):
            kind = self.random.choice([*KINDS, *(("inner", "tar", "linked folder", "loop") if deep < 3 else ())])
            if kind == "inner":
                inner = path / self.name(self.random.choice(["", ".d"]))
                truth = self.folder(inner, deep + 1, done)
                done = (*done, (inner, truth))
            elif kind == "linked folder" and self.links < 3:
                self.links += 1
                target, truth = self.random.choice([*done, (self.outside, (1, 1, 1))])
                (path / self.name("")).symlink_to(target)
            elif kind == "loop":
                (path / self.name("")).symlink_to(self.random.choice([".", path.parent]) if deep else ".")
                truth = (0, 0, 1)
            elif kind == "tar":
                truth = self.tar(path / self.name(".tar"))
            else:
                truth = self.file(path, kind if kind in KINDS else "picture")
            total.update(dict(enumerate(truth)))
        return total[0], total[1], total[2]

    def file(self, folder: Path, kind: str) -> TRUTH:
        """Make something that is no folder."""
        ending = self.random.choice(ENDINGS)
        path = folder / self.name(ending)
        if kind == "picture":
            path.write_bytes(encoded(ending))
            if self.random.random() < 0.3:  # another with the same name and another ending
                path.with_suffix(".jpeg").write_bytes(encoded(".jpg"))
                return 2, 0, 0
            return 1, 0, 0
        if kind in ("link", "hard link"):
            target = self.outside / "far.png"
            path = path.with_suffix(".png")
            path.symlink_to(target) if kind == "link" else os.link(target, path)
            return 1, 0, 0
        if kind in ("damaged", "empty"):
            path.write_bytes(encoded(ending)[:20] if kind == "damaged" else b"")
            return 0, 1, 0
        if kind == "pipe":
            os.mkfifo(path)
            return 0, 1, 0
        if kind == "to nowhere":
            path.symlink_to(self.random.choice(["gone", path.name]))
            return 0, 1, 0
        if kind == "packed":
            path = folder / self.name(self.random.choice([".tar", ".tar.gz", ".tgz"]))
            path.write_bytes(gzip.compress(b"x"))
            return 0, 1, 0
        if kind == "heic":
            (folder / self.name(".HEIC")).write_bytes(b"x")
            return 0, 1, 0
        if kind == "hidden folder":
            inner = folder / self.random.choice([f".git{self.number}", f".{self.number}.png"])
            inner.mkdir()
            (inner / "a.png").write_bytes(encoded(".png"))
            return 0, 0, 1
        (folder / SKIPPED[kind](self)).write_bytes(encoded(".png"))
        return 0, 0, 1

    def tar(self, path: Path) -> TRUTH:
        """Write a shard."""
        total = Counter()
        with tarfile.open(path, "w") as shard:

            def add(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
                entry = tarfile.TarInfo(name)
                entry.size, entry.type, entry.linkname = len(content), kind, target
                shard.addfile(entry, io.BytesIO(content))

            add("first.png", encoded(".png"))
            add("folder", kind=tarfile.DIRTYPE)
            total[0] += 1
            for _ in range(self.random.randint(0, 6)):
                self.number += 1
                stem = f"{self.random.choice(['', './', 'w/', '../', '/', 'x/' * 30])}m{self.number}"
                kind = self.random.choice(MEMBERS)
                if kind == "picture":
                    add(f"{stem}.png", encoded(".png"))
                    total[0] += 1
                elif kind == "long":
                    add(f"{stem}{'long' * 100}.png", encoded(".png"))
                    total[0] += 1
                elif kind == "replaced":
                    add(f"{stem}.png", b"x")
                    add(f"{stem}.png", encoded(".png"))
                    total.update({0: 1, 2: 1})
                elif kind == "sample":
                    for ending in (".png", ".seg.png", ".json"):
                        add(f"{stem}{ending}", encoded(".png"))
                    total.update({0: 1, 2: 2})
                elif kind == "apple":
                    folder, _, name = stem.rpartition("/")
                    add(f"{folder}/._{name}.png", b"x")
                    total[2] += 1
                elif kind == "links":
                    add(f"m{self.number}.png", kind=tarfile.LNKTYPE, target="first.png")
                    add(f"n{self.number}.png", kind=tarfile.SYMTYPE, target=f"m{self.number}.png")
                    total[0] += 2
                else:
                    target = self.random.choice(["gone.png", "/etc/passwd", f"{stem}.png"])
                    add(f"{stem}.png", kind=self.random.choice([tarfile.SYMTYPE, tarfile.LNKTYPE]), target=target)
                    total[1] += 1
        return total[0], total[1], total[2]


SKIPPED = {
    "no picture": lambda it: it.name(it.random.choice(NO_ENDINGS)),
    "hidden": lambda it: f".{it.name('.png')}",
    "apple": lambda it: f"._{it.name('.jpg')}",
    "own": lambda it: it.name(it.random.choice([".masks.png", ".labels.png", ".explain.png"])),
}
PLAIN_KINDS = ("picture", "link", "hard link", "damaged", "empty", "pipe", "to nowhere", "packed", "heic")
KINDS = ("picture", "picture", *PLAIN_KINDS, "hidden folder", *SKIPPED)
MEMBERS = ("picture", "picture", "long", "replaced", "sample", "apple", "links", "to nowhere")


def encoded(ending: str) -> bytes:
    form = {".png": "PNG", ".jpg": "JPEG", ".tif": "TIFF"}.get(ending.lower(), ending[1:].upper())
    Image.fromarray(colourful(6, 8)).save(file := io.BytesIO(), form)
    return file.getvalue()


class Stub:
    """A model that reads pictures as all do, and sees nothing in them."""

    name = "stub"
    model = SimpleNamespace(state_dict=dict)

    def check(self, *_):
        return of_known_labels("semantic")

    def stream(self, pictures, vocabulary, _):
        for picture in pictures:
            try:
                rgb = read_picture(picture())
                yield Segmentation(np.zeros(rgb.shape[:2], np.uint8), [], asked_for(rgb, vocabulary))
            except (ValueError, OSError) as error:
                yield error


@contextmanager
def unwatched(*_):
    yield lambda: None


def label(source: Path, output: Path, notes: list[str] | None = None):
    output.mkdir(exist_ok=True)
    collection = Collection(str(source))
    job = BatchJob(output, ("labels", "coco", "yolo"), ModelChoice("stub", "cpu", "float32"), WORDS, Settings())
    return run_job(
        job,
        look_through(collection, skip=output),
        segmenter=Stub(),
        collection=collection,
        run=lambda left: work(job, left, Stub()),
        watch=unwatched,
        note=(notes if notes is not None else []).append,
    )


def check(source: Path, output: Path, truth: TRUTH | None) -> TRUTH:
    """Label a collection, and compare every place that says what became of it."""
    report, notes = label(source, output), []
    results, failures, skips = report.total - len(report.failures), len(report.failures), len(report.skips)
    if truth is not None:
        assert (results, failures, skips) == truth, (report.failures, report.skips.names)
    written = json.loads((output / "report.json").read_text())
    assert [written[name] for name in ("results", "failures", "skipped")] == [results, failures, skips]
    assert written["inputs"] == results + failures + skips == truth_sum(written)
    assert all(failure.error and failure.source for failure in report.failures)
    assert sum(len(files) for *_, files in os.walk(output / "labels")) == results
    if failures:
        rows = list(csv.reader(io.StringIO((output / "failed.csv").read_text(), newline="")))
        assert len(rows) == failures + 1
    names = [image["file_name"] for image in json.loads((output / "instances.json").read_text())["images"]]
    assert len(names) == len({*names}) == results
    assert not any(name.startswith("/") or ".." in name.split("/") for name in names)
    images = [Path(folder, name) for folder, _, files in os.walk(output / "yolo" / "images") for name in files]
    assert len({label_of(path) for path in images}) == len(images) == results
    assert all(path.exists() and label_of(path).is_file() for path in images)
    before = (output / "report.json").read_bytes()
    again = label(source, output, notes)
    assert (again.earlier, again.total, notes) == (results, report.total, []), "nothing is done twice"
    assert (output / "report.json").read_bytes() == before
    return results, failures, skips


def truth_sum(written: dict) -> int:
    left_out = sum(reason["count"] for reason in written["left_out"].values())
    assert left_out == sum(len(reason["names"]) for reason in written["left_out"].values())
    return written["results"] + len(written["failed"]) + left_out


def label_of(image: Path) -> Path:
    """As Ultralytics finds the labels of a picture (utils.py: img2label_paths)."""
    return Path("/labels/".join(str(image).rsplit("/images/", 1)).rsplit(".", 1)[0] + ".txt")


def check_tree(seed: int, root: Path) -> None:
    made = Counted(seed, root)
    results, failures, skips = made.folder(root / "in")
    (root / "in" / "sure.png").write_bytes(encoded(".png"))
    check(root / "in", root / "out", (results + 1, failures, skips))
    shard = root / "shard.tar"
    check(shard, root / "of a tar", made.tar(shard))
    listed = [path for path in sorted((root / "in").iterdir()) if path.suffix == ".png" and "\n" not in path.name]
    listed = [path for path in listed if "\udcff" not in path.name and path.is_file()]
    lines = [*listed, listed[0], "gone.png", "nothing*.png", root / "outside"]
    (root / "list.txt").write_text("\n".join(str(line) for line in lines))
    counts = check(root / "list.txt", root / "of a list", None)
    assert sum(counts) == len(lines) + 2, "the folder holds three"
    pattern = root / "in" / "*.png"
    counts = check(pattern, root / "of a glob", None)
    assert sum(counts) == sum(path.name[0] != "." for path in (root / "in").glob("*.png") if not path.is_dir())


@pytest.mark.parametrize("seed", range(6))
def test_inputs_are_results_and_failures_and_skips(tmp_path, seed):
    check_tree(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6, 306))
def test_inputs_of_many_trees(tmp_path, seed):
    check_tree(seed, tmp_path)
