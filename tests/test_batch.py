"""A job over a collection: what it writes, what it remembers, and that a killed one ends as if nothing had been."""

import csv
import errno
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from conftest import colourful
from wordmask.batch.formats import write_picture
from wordmask.batch.inputs import Collection, find_items
from wordmask.batch.journal import FOLDER, BatchJournal
from wordmask.segmenter import Segmenter, load
from wordmask.weights import save

WORDS = ["person", "sky", "car", "grass"]
EOV = ["--model", "eov-seg-untrained"]
ALL = [
    argument
    for name in ("labels", "overlays", "coco", "coco-panoptic", "yolo", "parquet")
    for argument in ("--format", name)
]


@pytest.fixture
def run(run):
    """Run `wordmask batch …`, likewise."""
    return lambda *arguments: run("batch", *arguments)


@pytest.fixture
def photos(tmp_path):
    write_pictures(tmp_path / "photos", 6)
    return tmp_path / "photos"


def write_pictures(folder: Path, count: int) -> None:
    (folder / "deep").mkdir(parents=True)
    for number in range(count):
        Image.fromarray(colourful(40, 50 + 10 * (number % 2), number)).save(
            folder / ("deep" if number % 3 == 0 else ".") / f"{number:03}.png"
        )


def files(folder: Path) -> dict[str, bytes]:
    """Everything a job wrote but what it remembers."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and FOLDER not in path.relative_to(folder).parts
    }


def test_every_format_says_what_the_model_said(run, photos, tmp_path):
    pytest.importorskip("pyarrow")
    from pyarrow import parquet

    status, out, err = run("photos", "out", *WORDS, *EOV, *ALL)
    assert status == 0, err
    assert "6 of 6 pictures → out/" in out
    items = find_items(Collection("photos"), skip=tmp_path / "out")
    expected = [load("eov-seg-untrained")(item.path, WORDS) for item in items]
    instances, panoptic = (
        json.loads((tmp_path / "out" / f"{name}.json").read_text()) for name in ("instances", "panoptic")
    )
    rows = parquet.read_table(tmp_path / "out" / "masks.parquet").to_pylist()
    assert [image["file_name"] for image in instances["images"]] == [item.file_name for item in items]
    assert [annotation["id"] for annotation in instances["annotations"]] == list(
        range(1, len(instances["annotations"]) + 1)
    )
    for number, (item, result) in enumerate(zip(items, expected, strict=True), 1):
        with Image.open(tmp_path / "out" / "labels" / f"{item.stem}.png") as labels:
            np.testing.assert_array_equal(np.array(labels), result.labels)
        own = [annotation for annotation in instances["annotations"] if annotation["image_id"] == number]
        assert [annotation["segmentation"] for annotation in own] == [region.to_rle() for region in result.regions]
        info = next(annotation for annotation in panoptic["annotations"] if annotation["image_id"] == number)
        with Image.open(tmp_path / "out" / "panoptic" / info["file_name"]) as ids:
            np.testing.assert_array_equal(np.array(ids)[..., 0], result.segments)
        assert [segment["area"] for segment in info["segments_info"]] == [region.area for region in result.regions]
        table = [row for row in rows if row["picture"] == item.stem]
        assert [(row["name"], row["score"], row["left"], row["bottom"]) for row in table] == [
            (region.name, region.score, region.box[0], region.box[3]) for region in result.regions
        ]
        for row, region in zip(table, result.regions, strict=True):
            decoded = coco_mask.decode({"size": [row["height"], row["width"]], "counts": row["counts"]})
            np.testing.assert_array_equal(decoded.astype(bool), region.mask)
        lines = (tmp_path / "out" / "yolo" / "labels" / f"{item.stem}.txt").read_text().splitlines()
        assert {int(line.split()[0]) for line in lines} == {region.label for region in result.regions}
        assert all(0 <= float(number) <= 1 for line in lines for number in line.split()[1:])
        assert (tmp_path / "out" / "overlays" / f"{item.stem}.jpg").exists()
    assert (
        (tmp_path / "out" / "yolo" / "data.yaml")
        .read_text()
        .endswith('names:\n  0: "person"\n  1: "sky"\n  2: "car"\n  3: "grass"\n')
    )
    classes = json.loads((tmp_path / "out" / "classes.json").read_text())
    assert classes["unlabelled"] == 255
    assert [entry["names"] for entry in classes["classes"]] == [[word] for word in WORDS]


def test_a_job_goes_on_where_it_was_stopped(run, photos, tmp_path, monkeypatch):
    """Interrupted at the last picture, one line of the journal torn, one file gone: only what is missing is done
    again."""
    assert run("photos", "whole", *WORDS, *EOV, *ALL)[0] == 0
    ordinary, seen = Segmenter._run, []

    def watched(self, group, request):
        seen.extend(ready.source for ready in group)
        if stop and len(seen) > 5:
            raise KeyboardInterrupt
        return ordinary(self, group, request)

    monkeypatch.setattr(Segmenter, "_run", watched)
    stop = True
    status, out, _ = run("photos", "out", *WORDS, *EOV, *ALL)
    assert status == 130
    finished = BatchJournal(tmp_path / "out").read()
    items = find_items(Collection("photos"), skip=tmp_path / "out")
    done = [item for item in items if item.stem in finished]
    assert f"Stopped: {len(done)} of 6 pictures are finished" in out
    assert len(done) >= 1
    (tmp_path / "out" / "labels" / f"{done[0].stem}.png").unlink()
    (tmp_path / "out" / FOLDER / "finished" / "torn.jsonl").write_text('["5", ["labels/')
    (tmp_path / "out" / FOLDER / "unfinished" / ".1234.png").write_text("half")
    stop, seen[:] = False, []
    status, out, _ = run("photos", "out", *WORDS, *EOV, *ALL)
    assert status == 0
    assert f"6 of 6 pictures, {len(done) - 1} of them earlier" in out
    assert sorted(seen) == sorted(str(item.path) for item in items if item not in done[1:])
    assert files(tmp_path / "out") == files(tmp_path / "whole")
    seen.clear()
    assert run("photos", "out", *WORDS, *EOV, *ALL)[0] == 0
    assert seen == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*WORDS[:3], "--model", "err-seg-untrained"], 'words: it was ["person [thing]"'),
        ([*WORDS, "--model", "eov-seg-untrained"], 'model: it was "err-seg-untrained", now "eov-seg-untrained"'),
        ([*WORDS, "--model", "err-seg-untrained", "--threshold", 0.5], "threshold: it was 0.0, now 0.5"),
        ([*WORDS, "--model", "err-seg-untrained", "--format", "coco"], 'formats: it was ["labels"], now ["coco"]'),
    ],
)
def test_another_job_is_refused(run, photos, arguments, message):
    assert run("photos", "out", *WORDS, "--model", "err-seg-untrained")[0] == 0
    status, _, err = run("photos", "out", *arguments)
    assert status == 2
    assert "has results of another job" in err
    assert message in err


def test_two_jobs_at_a_time_are_refused(run, photos, tmp_path):
    with BatchJournal(tmp_path / "out").alone():
        status, _, err = run("photos", "out", *WORDS, *EOV)
    assert status == 2
    assert "Another job is at work" in err


def test_bad_files_are_reported_and_tried_again(run, photos, tmp_path):
    whole = (photos / "001.png").read_bytes()
    (photos / "001.png").write_bytes(whole[:100])
    (photos / "notes.jpg").write_text("no picture")
    status, out, err = run("photos", "out", *WORDS, *EOV, "--format", "coco")
    assert status == 1
    assert "5 of 7 pictures → out/" in out
    assert "2 failed, see out/failed.csv" in err
    rows = list(csv.reader((tmp_path / "out" / "failed.csv").read_text().splitlines()))
    assert [row[0] for row in rows] == ["picture", "001", "notes"]
    assert "damaged or ends early" in rows[1][2]
    images = json.loads((tmp_path / "out" / "instances.json").read_text())["images"]
    assert [image["id"] for image in images] == [1, 2, 3, 4, 5]
    (photos / "001.png").write_bytes(whole)
    (photos / "notes.jpg").unlink()
    status, out, _ = run("photos", "out", *WORDS, *EOV, "--format", "coco")
    assert status == 0
    assert "6 of 6 pictures, 5 of them earlier" in out
    assert not (tmp_path / "out" / "failed.csv").exists()
    assert run("photos", "fresh", *WORDS, *EOV, "--format", "coco")[0] == 0
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["photos", "out"], "No words were given"),
        (["missing", "out", "sky"], "no picture 'missing'"),
        (["photos", "out", "sky", "--words", "car"], "came in 2 ways"),
        (["photos", "out", "sky", "sky"], "given twice"),
        (["photos", "out", "sky", "--format", "png"], "png"),
        (
            ["photos", "out", "sky", "--format", "coco-panoptic", "--model", "err-seg-untrained"],
            "needs the task panoptic",
        ),
        (["photos", "out", "sky", "--every", "0"], "expected seconds"),
        (["photos", "out", "sky", "--processes", "0"], "processes"),
        (["photos", "/proc/nowhere", "sky"], "cannot be written to"),
        (["photos", "out", "sky", "--tile", "big"], "tile came as 'big'"),
    ],
)
def test_errors_are_messages(run, photos, arguments, message):
    status, _, err = run(*arguments, *([] if "--model" in arguments else EOV))
    assert status == 2
    assert message in err


def test_what_is_told_at_the_start(run, photos, tmp_path):
    """One word is no words; and labels of random weights are said to mean nothing."""
    err = run("photos", "out", "sky", "--model", "err-seg-untrained")[2]
    assert "6 pictures · 1 word → labels in out/" in err
    assert "err-seg-untrained has random weights; its labels mean nothing" in err


def test_a_folder_with_a_models_name_is_not_the_model(run, photos, tmp_path):
    (tmp_path / "eov-seg-untrained").mkdir()
    status, _, err = run("photos", "out", *WORDS, *EOV)
    assert status == 0, err


def test_a_models_file_is_found_from_any_folder(run, photos, tmp_path, tiny):
    save(tmp_path / "mine.safetensors", tiny.state_dict(), family="err-seg", configuration=tiny.config, origin="a test")
    assert run("photos", "out", *WORDS, "--model", "mine.safetensors")[0] == 0
    noted = json.loads((tmp_path / "out" / FOLDER / "job.json").read_text())
    assert noted["model"] == str(tmp_path / "mine.safetensors")


def test_tiles(run, photos, tmp_path):
    assert run("photos", "out", *WORDS, *EOV, "--task", "semantic", "--tile", 64)[0] == 0
    assert json.loads((tmp_path / "out" / FOLDER / "job.json").read_text())["tile"] == 64


# What changed between two runs --------------------------------------------------------------------------------------


def seen_by(monkeypatch) -> list[str]:
    """The pictures that a model looks at from now on."""
    ordinary, seen = Segmenter._run, []

    def watched(self, group, request):
        seen.extend(Path(ready.source).stem for ready in group)
        return ordinary(self, group, request)

    monkeypatch.setattr(Segmenter, "_run", watched)
    return seen


def test_a_picture_that_changed_is_labelled_again(run, photos, tmp_path, monkeypatch):
    assert run("photos", "out", *WORDS, *EOV, *ALL)[0] == 0
    seen = seen_by(monkeypatch)
    whole = (photos / "001.png").read_bytes()
    Image.fromarray(colourful(40, 60, 99)).save(photos / "001.png")
    status, out, err = run("photos", "out", *WORDS, *EOV, *ALL)
    assert (status, seen) == (0, ["001"])
    assert "6 of 6 pictures, 5 of them earlier" in out
    assert "note: done again, as the picture changed (1): 001." in err
    assert run("photos", "fresh", *WORDS, *EOV, *ALL)[0] == 0
    assert files(tmp_path / "out") == files(tmp_path / "fresh")
    written = (photos / "001.png").stat()
    (photos / "001.png").write_bytes(whole)  # of the same size, perhaps, but not of the same time
    os.utime(photos / "001.png", ns=(written.st_atime_ns, written.st_mtime_ns + 1))
    seen.clear()
    assert run("photos", "out", *WORDS, *EOV, *ALL)[0] == 0
    assert seen == ["001"], "back again is another change"
    (photos / "001.png").write_bytes(whole[:100])
    assert run("photos", "out", *WORDS, *EOV, *ALL)[0] == 1
    assert not (tmp_path / "out" / "labels" / "001.png").exists(), "no labels of another picture"
    assert not [path for path in files(tmp_path / "out") if "001" in path]


def test_a_list_that_means_another_picture_by_a_name(run, photos, tmp_path):
    Image.fromarray(colourful(40, 50, 7)).save(tmp_path / "001.png")
    for line in ("photos/001.png", "001.png"):
        (tmp_path / "list.txt").write_text(line)
        assert run("list.txt", "out", *WORDS, *EOV)[0] == 0
        with Image.open(tmp_path / "out" / "labels" / "001.png") as labels:
            assert labels.size == ((60, 40) if line == "photos/001.png" else (50, 40))


def test_a_name_that_clashes_later_is_given_up(run, photos, tmp_path):
    """a.jpg alone is `a`; beside a.png it is `a.jpg`: what was `a` doesn't stay, as if it were a third picture's."""
    assert run("photos", "out", *WORDS, *EOV, *ALL)[0] == 0
    Image.fromarray(colourful(40, 60, 99)).save(photos / "001.jpg")
    err = run("photos", "out", *WORDS, *EOV, *ALL)[2]
    assert "note: done again under another name, as names clash otherwise (1): 001." in err
    assert run("photos", "fresh", *WORDS, *EOV, *ALL)[0] == 0
    assert files(tmp_path / "out") == files(tmp_path / "fresh")


def test_results_whose_pictures_are_gone_are_named_and_stay(run, photos, tmp_path):
    assert run("photos", "out", *WORDS, *EOV)[0] == 0
    (photos / "001.png").unlink()
    status, out, err = run("photos", "out", *WORDS, *EOV)
    assert status == 0
    assert "5 of 5 pictures, 5 of them earlier" in out
    assert "note: results of pictures that are not in the input (1): 001." in err
    assert (tmp_path / "out" / "labels" / "001.png").exists()


def test_a_shard_that_changed_is_labelled_again(run, photos, tmp_path, monkeypatch):
    def pack(time: int) -> None:
        with tarfile.open(tmp_path / "s.tar", "w") as shard:
            for path in sorted(photos.glob("*.png")):
                entry = tarfile.TarInfo(path.name)
                entry.size = path.stat().st_size
                shard.addfile(entry, io.BytesIO(path.read_bytes()))
        os.utime(tmp_path / "s.tar", (time, time))

    pack(1)
    assert run("s.tar", "out", *WORDS, *EOV, "--format", "coco")[0] == 0
    names = json.loads((tmp_path / "out" / "instances.json").read_text())["images"]
    assert [image["file_name"] for image in names] == ["s/001.png", "s/002.png", "s/004.png", "s/005.png"]
    assert "4 of 4 pictures, 4 of them earlier" in run("s.tar", "out", *WORDS, *EOV, "--format", "coco")[1]
    pack(2)  # members have neither another size nor another time
    assert "4 of 4 pictures →" in run("s.tar", "out", *WORDS, *EOV, "--format", "coco")[1]


def as_earlier_versions_wrote(journal: BatchJournal) -> None:
    for path in journal.lines.glob("*.jsonl"):
        lines = []
        for line in path.read_bytes().splitlines():
            _, head, record = line.split(b"\t")
            lines.append(json.dumps(json.loads(head)[:2]).encode() + b"\t" + record + b"\n")
        path.write_bytes(b"".join(lines))


def test_a_job_of_an_earlier_version_goes_on(run, photos, tmp_path, monkeypatch):
    """Its journal says nothing of what it read: results count that are younger than their pictures."""
    assert run("photos", "out", *WORDS, *EOV, "--format", "labels", "--format", "coco")[0] == 0
    whole = files(tmp_path / "out")
    as_earlier_versions_wrote(BatchJournal(tmp_path / "out"))
    later = (tmp_path / "out" / "labels" / "001.png").stat().st_mtime_ns + 10**9
    os.utime(photos / "001.png", ns=(later, later))
    seen = seen_by(monkeypatch)
    status, out, err = run("photos", "out", *WORDS, *EOV, "--format", "labels", "--format", "coco")
    assert (status, seen) == (0, ["001"])
    assert "6 of 6 pictures, 5 of them earlier" in out
    assert "note: 5 results of an earlier version, which didn't note what it read" in err
    assert files(tmp_path / "out") == whole


DAMAGES = {
    "torn": lambda line: line[: len(line) // 2],
    "without its end, glued to the next": lambda line: line[:-30],
    "bytes changed": lambda line: line.replace(b"3", b"4"),
    "garbage": lambda line: b"\xff\xfegarbage\n",
    "zeros": lambda line: bytes(200) + b"\n",
    "json of another shape": lambda line: b'{"picture": "a"}\n',
    "a list of another shape": lambda line: b'["a"]\t[]\n',
    "a line of an earlier version, of another shape": lambda line: b'["a", ["b"]]\t{"picture": "a"}\n',
    "too deep": lambda line: b"[" * 100_000 + b"\n",
    "null": lambda line: b"null\n",
    "empty": lambda line: b"\n",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_line_is_named_and_done_again(run, photos, tmp_path, damage):
    formats = ["--format", "labels", "--format", "coco"]
    assert run("photos", "out", *WORDS, *EOV, *formats)[0] == 0
    whole = files(tmp_path / "out")
    (path,) = BatchJournal(tmp_path / "out").lines.glob("*.jsonl")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], DAMAGES[damage](lines[2]), *lines[3:]]))
    status, out, err = run("photos", "out", *WORDS, *EOV, *formats)
    assert status == 0
    assert f"note: 1 damaged line taken out of the journal; what they said is done again: {path.name} line 3." in err
    assert re.search("6 of 6 pictures, [45] of them earlier", out)
    assert files(tmp_path / "out") == whole
    assert "damaged" not in run("photos", "out", *WORDS, *EOV, *formats)[2], "it is said once"


@pytest.mark.parametrize("content", ["[]", "null", "", "\0" * 10, '{"words": '])
def test_a_damaged_note_of_the_job_is_a_message(run, photos, tmp_path, content):
    assert run("photos", "out", *WORDS, *EOV)[0] == 0
    (tmp_path / "out" / FOLDER / "job.json").write_text(content)
    status, _, err = run("photos", "out", *WORDS, *EOV)
    assert status == 2
    assert "job.json' is damaged" in err


@pytest.mark.parametrize("where", ["labels", "journal", "collected"])
def test_a_full_disk_names_the_file_and_the_job_goes_on(run, photos, tmp_path, monkeypatch, where):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    ordinary, written = os.write, []

    def half(file, content):
        written.append(content)
        if len(written) == 5:
            full()
        return ordinary(file, content[:10] if len(written) == 4 else content)

    with monkeypatch.context() as patch:
        if where == "labels":
            patch.setattr("PIL.Image.Image.save", full)
        elif where == "journal":
            patch.setattr("wordmask.batch.journal.os.write", half)
        else:
            patch.setattr("wordmask.batch.collected.categories", full)
        status, out, err = run("photos", "out", *WORDS, *EOV, "--format", "labels", "--format", "coco")
    assert status == 2
    named = {"labels": ".png", "journal": ".jsonl", "collected": "instances.json"}[where]
    assert re.search(f"error: \\[Errno 28\\] No space left on device: '.*{re.escape(named)}'", err)
    assert "of 6 pictures are finished. The same command goes on there." in out
    assert run("photos", "out", *WORDS, *EOV, "--format", "labels", "--format", "coco")[0] == 0
    assert run("photos", "whole", *WORDS, *EOV, "--format", "labels", "--format", "coco")[0] == 0
    assert files(tmp_path / "out") == files(tmp_path / "whole")


# Names ----------------------------------------------------------------------------------------------------------------


def test_names_that_clash_have_files_that_readers_find(run, tmp_path):
    """a.jpg beside a.png; YOLO's readers replace `/images/` and the ending of a picture's path."""
    for folder, name in (("photos", "a.png"), ("photos/images", "b.png"), ("far", "a.png")):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(colourful(20, 30)).save(tmp_path / folder / name)
    Image.fromarray(colourful(20, 30)).save(tmp_path / "photos" / "a.jpg")
    (tmp_path / "photos" / "far").symlink_to(tmp_path / "far")
    with tarfile.open(tmp_path / "photos" / "t.tar", "w") as shard:
        shard.add(tmp_path / "far" / "a.png", "deep/c.png")
    assert run("photos", "out", *WORDS, *EOV, "--format", "yolo", "--format", "coco")[0] == 0
    images = json.loads((tmp_path / "out" / "instances.json").read_text())["images"]
    names = ["a.jpg", "a.png", "far/a.png", "images/b.png", "t/deep/c.png"]
    assert [image["file_name"] for image in images] == names
    pictures = sorted(path for path in (tmp_path / "out" / "yolo" / "images").rglob("*") if path.is_file())
    assert len(pictures) == 5
    for path in pictures:
        labels = Path("/labels/".join(str(path).rsplit("/images/", 1)).rsplit(".", 1)[0] + ".txt")
        assert labels.is_file()
        with Image.open(path) as picture:
            assert picture.size == (30, 20)


def test_clashes_in_a_list_name_no_absolute_path(run, tmp_path):
    for folder in ("x", "y", "far"):
        (tmp_path / folder).mkdir()
    Image.fromarray(colourful(20, 30)).save(tmp_path / "x" / "a.png")
    Image.fromarray(colourful(20, 30)).save(tmp_path / "far" / "b.png")
    (tmp_path / "y" / "a.png").symlink_to(tmp_path / "far" / "b.png")
    (tmp_path / "list.txt").write_text("x/a.png\ny/a.png\n")
    assert run("list.txt", "out", *WORDS, *EOV, "--format", "coco")[0] == 0
    images = json.loads((tmp_path / "out" / "instances.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["x/a.png", "y/a.png"]


def test_own_results_are_no_input_of_the_next_run(run, photos, tmp_path):
    """Whether the output is the input, or lies in it, or a glob finds it; other jobs' outputs too."""
    for source, output in (("photos", "photos"), ("photos", "photos/out"), ("photos/**/*.png", "photos/out")):
        for earlier in ("", ", 6 of them earlier"):
            status, out, err = run(source, output, *WORDS, *EOV)
            assert status == 0, err
            assert f"6 of 6 pictures{earlier} → " in out
        assert "written by wordmask: photos/" in err
        if source == "photos" and output == "photos/out":
            shutil.rmtree(photos / "out")


def test_somebodys_pictures_where_results_go_are_refused(run, photos):
    shutil.copytree(photos, photos / "labels")
    for source, output in (("photos", "photos"), ("photos/labels", "photos"), ("photos/labels/*.png", "photos")):
        before = files(photos)
        status, _, err = run(source, output, *WORDS, *EOV)
        assert status == 2
        assert "lies where results are to be written. Choose another output folder than 'photos'" in err
        assert files(photos) == before


def test_a_name_that_the_system_refuses_is_one_failure(run, photos, tmp_path):
    """A folder called as a result is: the others don't suffer."""
    (photos / "002.png").unlink()
    (photos / "004.jpg").write_bytes((photos / "001.png").read_bytes())
    (photos / "004.png").unlink()
    (photos / "004.png").mkdir()  # labels/004.png is to be a file and a folder
    (photos / "001.png").rename(photos / "004.png" / "inside.png")
    status, out, err = run("photos", "out", *WORDS, *EOV)
    assert status == 1
    assert "4 of 5 pictures → out/" in out
    assert "Its results can't be written" in err


def test_what_names_say_to_a_terminal_is_shown_and_not_obeyed(run, photos):
    (photos / "\x1b[31mred\nsecond\u202e.png").write_text("no picture")
    (photos / "\x1b]0;title\x07.txt").write_text("no picture")
    for arguments in (("photos", "out", *WORDS), ("photos", "out", *WORDS, "--format", "coco")):
        _, out, err = run(*arguments, *EOV)
    _, out, err = run("photos", "another", *WORDS, *EOV)
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", out + err)
    assert r"photos/\x1b[31mred\nsecond\u202e.png" in err
    assert r"1 no picture: photos/\x1b]0;title\x07.txt" in err


# Processes ------------------------------------------------------------------------------------------------------------


def start(folder: Path, output: str, *settings: str) -> subprocess.Popen:
    command = [sys.executable, "-m", "wordmask", "batch", "photos", output, *WORDS, *settings]
    return subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(folder: Path, output: str, *settings: str) -> str:
    out, err = (process := start(folder, output, *settings)).communicate()
    assert process.returncode == 0, err
    return out


def kill_after(folder: Path, output: str, pictures: int, *settings: str) -> int:
    """Start a job, kill all its processes when it has finished so many more pictures; return how many there are
    then."""
    process, journal = start(folder, output, *settings), BatchJournal(folder / output)
    before = count_lines(journal)
    while process.poll() is None and count_lines(journal) < before + pictures:
        time.sleep(random.uniform(0, 0.02))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return count_lines(journal)


def count_lines(journal: BatchJournal) -> int:
    return sum(path.read_bytes().count(b"\n") for path in journal.lines.glob("*.jsonl"))


@pytest.mark.slow
def test_a_killed_job_ends_as_an_undisturbed_one(tmp_path):
    write_pictures(tmp_path / "photos", 12)
    finish(tmp_path, "whole", *EOV, *ALL)
    killed = kill_after(tmp_path, "out", 4, *EOV, *ALL)
    assert 4 <= killed < 12, "killed in the middle"
    finish(tmp_path, "out", *EOV, *ALL)
    assert count_lines(BatchJournal(tmp_path / "out")) == 12, "nothing twice"
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.slow
def test_five_kills_in_two_hundred_pictures(tmp_path):
    from wordmask.data.shapeland import World, draw_scene, things_of

    (tmp_path / "photos").mkdir()
    world = World(96, 96, things=things_of("shapeland-150"))
    for number in range(200):
        Image.fromarray(draw_scene(4 * 10**9 + number, world).rgb).save(tmp_path / "photos" / f"{number:03}.png")
    settings = ["--model", "eov-seg-tiny", *ALL]
    finish(tmp_path, "whole", *settings)
    for _ in range(5):
        kill_after(tmp_path, "out", random.randint(1, 39), *settings)
    finish(tmp_path, "out", *settings)
    assert count_lines(BatchJournal(tmp_path / "out")) == 200
    assert files(tmp_path / "out") == files(tmp_path / "whole")


@pytest.mark.slow
def test_processes_divide_the_work_without_gaps(tmp_path, monkeypatch):
    """Two processes give what one gives; killed with their parent, they don't go on; one killed alone is told."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_pictures(tmp_path / "photos", 20)
    finish(tmp_path, "whole", *EOV, *ALL)
    process, journal = start(tmp_path, "out", *EOV, *ALL, "--processes", "2"), BatchJournal(tmp_path / "out")
    while process.poll() is None and count_lines(journal) < 3:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    time.sleep(2)
    count = count_lines(journal)
    time.sleep(2)
    assert count_lines(journal) == count < 20
    finish(tmp_path, "out", *EOV, *ALL, "--processes", "2")
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_what_a_stopped_job_says_is_what_there_is(run, photos, tmp_path, monkeypatch):
    """It counts when all threads have ended: none writes after that."""

    def write_slowly(*arguments, **settings):
        time.sleep(0.2)
        return write_picture(*arguments, **settings)

    @contextmanager
    def press_at_once(*_):
        def one_more():
            raise KeyboardInterrupt

        yield one_more

    monkeypatch.setattr("wordmask.batch.job.write_picture", write_slowly)
    monkeypatch.setattr("wordmask.batch.command.bar", press_at_once)
    status, out, _ = run("photos", "out", *WORDS, *EOV)
    there = len(files(tmp_path / "out"))
    assert status == 130
    assert there > 0
    assert f"Stopped: {there} of 6 pictures are finished." in out


@pytest.mark.slow
@pytest.mark.parametrize("wait", [0.3, 2.0])  # seconds: the processes import, and then load
def test_an_interruption_while_processes_start_is_no_traceback(tmp_path, wait):
    """A terminal sends Ctrl-C to all of them."""
    write_pictures(tmp_path / "photos", 6)
    process = start(tmp_path, "out", *EOV, "--processes", "2")
    said = [next(process.stderr), next(process.stderr)]  # of random weights, and what the job is
    time.sleep(wait)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert "6 pictures" in said[1]
    assert process.returncode == 130
    assert "Traceback" not in err
    assert "of 6 pictures are finished. The same command goes on there." in out


@pytest.mark.slow
def test_a_ray_cluster_does_the_same_job(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    write_pictures(tmp_path / "photos", 20)
    (tmp_path / "photos" / "bad.png").write_text("no picture")
    outcomes = []
    for output, settings in (("whole", []), ("out", ["--ray"])):
        process = start(tmp_path, output, *EOV, *ALL, *settings)
        outcomes.append((process.communicate()[1], process.returncode))
        assert "bad.png" in outcomes[-1][0]
        assert outcomes[-1][1] == 1, outcomes[-1][0]
    assert files(tmp_path / "out") == files(tmp_path / "whole")
