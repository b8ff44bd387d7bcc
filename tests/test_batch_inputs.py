import io
import os
import shutil
import subprocess
import tarfile
import unicodedata

import numpy as np
import pytest
from PIL import Image

from conftest import colourful
from wordmask.batch.inputs import Collection, find_items, look_through
from wordmask.folders import Reason
from wordmask.image import read_picture


def encoded(seed: int = 0) -> bytes:
    file = io.BytesIO()
    Image.fromarray(colourful(20, 30, seed)).save(file, "PNG")
    return file.getvalue()


def write_tar(path, members: dict[str, bytes], mode: str = "w") -> None:
    with tarfile.open(path, mode) as shard:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))


def found(argument, tmp_path, **settings) -> list:
    return find_items(Collection(str(argument), **settings), skip=tmp_path / "out")


def test_a_folder_a_glob_and_a_list(tmp_path):
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for name in ("b.png", "a.png", "deep/c.png", ".hidden.png"):
        (tmp_path / "photos" / name).write_bytes(encoded())
    assert [item.stem for item in found(tmp_path / "photos", tmp_path)] == ["a", "b", "deep/c"]
    assert [item.file_name for item in found(tmp_path / "photos", tmp_path)] == ["a.png", "b.png", "deep/c.png"]
    assert [item.stem for item in found(tmp_path / "photos" / "*.png", tmp_path)] == ["a", "b"]
    (tmp_path / "list.txt").write_text("# mine\nphotos/deep/c.png\n\nphotos/a.png\nphotos/gone.png\n")
    items = found(tmp_path / "list.txt", tmp_path)
    assert [item.stem for item in items] == ["c", "a", "gone"]
    assert all(np.array_equal(read_picture(item.read()), colourful(20, 30)) for item in items[:2])


def test_lists_that_windows_wrote(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded())
    (tmp_path / "list.txt").write_text("a.png\r\n", encoding="utf-8-sig")
    assert [item.path for item in found(tmp_path / "list.txt", tmp_path)] == [tmp_path / "a.png"]
    (tmp_path / "list.txt").write_text("Bär.png\n", encoding="latin-1")
    with pytest.raises(ValueError, match=r"list.txt' cannot be read: .* Expected UTF-8 text"):
        found(tmp_path / "list.txt", tmp_path)


def test_shards_as_webdataset_names_them(tmp_path):
    for number in range(2):
        members = {f"{number}/00{place}.png": encoded(place) for place in range(2)} | {f"{number}/000.json": b"{}"}
        members |= {f"{number}/000.seg.png": encoded(9), f"{number}/my.holiday.png": encoded(5)}
        write_tar(tmp_path / f"shard-0{number}.tar", members)
    for argument in ("shard-*.tar", "shard-{00..01}.tar", "."):
        items = found(tmp_path / argument, tmp_path)
        stems = [f"shard-0{number}/{number}/{name}" for number in range(2) for name in ("000", "001", "my.holiday")]
        assert [item.stem for item in items] == stems, (
            "the picture of sample 000 is 000.png; the last sample has another name only"
        )
    assert np.array_equal(read_picture(items[1].read()), colourful(20, 30, 1))
    assert items[1].source.endswith("shard-00.tar:0/001.png")


def test_a_shard_cannot_reach_outside(tmp_path):
    write_tar(tmp_path / "evil.tar", {"../../etc/a.png": encoded(), "/abs/b.png": encoded(), "..\\c.png": encoded()})
    assert [item.stem for item in found(tmp_path / "evil.tar", tmp_path)] == ["evil/etc/a", "evil/abs/b", "evil/c"]


def test_names_that_clash_are_numbered(tmp_path):
    write_tar(tmp_path / "s.tar", {"a.png": encoded(), "A.png": encoded(), "a.jpg": encoded(), "a~1.png": encoded()})
    stems = [item.stem for item in found(tmp_path / "s.tar", tmp_path)]
    assert len({stem.casefold() for stem in stems}) == 4
    write_tar(tmp_path / "s.tar", {"\u00e9.png": encoded(), "e\u0301.png": encoded()})
    stems = [item.stem for item in found(tmp_path / "s.tar", tmp_path)]
    assert len({unicodedata.normalize("NFC", stem) for stem in stems}) == 2, "some systems take both for one"


def test_what_cannot_be_opened_is_one_failure(tmp_path):
    (tmp_path / "bad.tar").write_bytes(b"no tar at all")
    write_tar(tmp_path / "none.tar", {"a.json": b"{}"})
    write_tar(tmp_path / "good.tar", {"a.png": encoded()})
    items = found(tmp_path / "*.tar", tmp_path)
    assert [item.stem for item in items] == ["bad", "good/a", "none"]
    for item, message in ((items[0], "bad.tar"), (items[2], "no picture in it")):
        with pytest.raises(ValueError, match=message):
            item.read()


def test_a_shard_that_ends_early_gives_what_it_has(tmp_path):
    write_tar(tmp_path / "s.tar", {f"{number}.png": encoded(number) for number in range(3)})
    whole = (tmp_path / "s.tar").read_bytes()
    length = found(tmp_path / "s.tar", tmp_path)[2].part.offset
    for cut in (length - 512, length - 100, length + 20):  # between two members, in a header, in the data
        (tmp_path / "s.tar").write_bytes(whole[:cut])
        *items, last = found(tmp_path / "s.tar", tmp_path)
        assert [item.stem for item in items[:2]] == ["s/0", "s/1"]
        assert last.problem


def linked(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def test_links_of_a_shard_are_what_they_lead_to(tmp_path):
    with tarfile.open(tmp_path / "s.tar", "w") as shard:
        for entry in (
            linked("w/early.png", "a.png"),
            linked("w/nowhere.png", "../../etc/passwd"),
            linked("w/itself.png", "itself.png"),
            linked("w/before.png", "w/a.png", tarfile.LNKTYPE),
        ):
            shard.addfile(entry)
        for seed in (1, 2):  # the second takes the place of the first, but not of what was linked to it
            content = encoded(seed)
            entry = tarfile.TarInfo("w/a.png")
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
            shard.addfile(linked(f"./w/hard{seed}.png", "w/a.png", tarfile.LNKTYPE))
    holdings = look_through(Collection(str(tmp_path / "s.tar")), skip=tmp_path / "out")
    read = {item.stem: item for item in holdings.items}
    for stem, seed in (("s/w/early", 2), ("s/w/a", 2), ("s/w/hard1", 1), ("s/w/hard2", 2)):
        assert read.pop(stem).read() == encoded(seed), stem
    assert sorted(read) == ["s/w/before", "s/w/itself", "s/w/nowhere"]
    for item in read.values():
        with pytest.raises(ValueError, match=r"s\.tar:w/.* it is a link to .*, which is no file in the shard"):
            item.read()
    assert holdings.skips.lines() == [f"1 {Reason.REPLACED}: {tmp_path / 's.tar'}:w/a.png"]


def test_what_gnu_tar_makes_of_links(shared, tmp_path):
    items = found(shared / "cases" / "tar" / "gnu.tar", tmp_path)
    assert [item.file_name for item in items] == [f"gnu/w/{n}.png" for n in ("s01copy", "s01sym", "sparse", "s01")]
    pictures = [read_picture(item.read()) for item in items if "sparse" not in item.stem]
    assert len(pictures) == 3
    assert all(np.array_equal(picture, pictures[0]) for picture in pictures)


def test_a_file_with_holes_is_read_with_its_holes(tmp_path):
    """The stored parts stand one after the other in a shard; read as they are, they would run into the next member."""
    pytest.importorskip("fcntl")
    if shutil.which("tar") is None:
        pytest.skip("no tar here")
    picture = np.zeros((600, 600, 3), np.uint8)
    picture[:2], picture[-2:] = 200, 100
    Image.fromarray(picture).save(tmp_path / "dense.bmp")
    content = (tmp_path / "dense.bmp").read_bytes()
    with (tmp_path / "holes.bmp").open("wb") as file:
        for start in range(0, len(content), 4096):
            block = content[start : start + 4096]
            file.seek(len(block), os.SEEK_CUR) if not any(block) else file.write(block)
    subprocess.run(["tar", "-cSf", "s.tar", "holes.bmp", "dense.bmp"], cwd=tmp_path, check=True)
    items = found(tmp_path / "s.tar", tmp_path)
    assert [np.array_equal(read_picture(item.read()), picture) for item in items] == [True, True]


def test_what_macos_and_cameras_leave_is_counted(tmp_path):
    members = {"a.png": encoded(), "._a.png": b"x", "__MACOSX/b.png": b"x", "b.txt": b"", "c.CR2": b"", "d.HEIC": b"x"}
    write_tar(tmp_path / "s.tar", members)
    holdings = look_through(Collection(str(tmp_path / "s.tar")), skip=tmp_path / "out")
    assert [item.stem for item in holdings.items] == ["s/a", "s/d"]
    assert holdings.skips.counts == {Reason.HIDDEN: 2, Reason.NO_PICTURE: 1, Reason.OTHER_PICTURE: 1}


def test_a_compressed_shard_says_so(tmp_path):
    write_tar(tmp_path / "a.tar", {"a.png": encoded()}, "w:gz")
    write_tar(tmp_path / "b.tar.gz", {"a.png": encoded()}, "w:gz")
    write_tar(tmp_path / "c.tar", {"a.png": encoded()})
    items = found(tmp_path, tmp_path)
    assert [item.stem for item in items] == ["a", "b.tar", "c/a"]
    for item, message in ((items[0], r"compressed \(gzip\)\. Unpack it"), (items[1], "it is compressed")):
        with pytest.raises(ValueError, match=message):
            item.read()


def test_names_longer_than_a_system_takes(tmp_path):
    long = "é" * 150
    write_tar(tmp_path / "s.tar", {f"{long}1.png": encoded(1), f"{long}2.png": encoded(2), f"{long}/x.png": encoded(3)})
    items = found(tmp_path / "s.tar", tmp_path)
    assert len({item.stem for item in items}) == 3
    assert all(len(os.fsencode(part)) <= 240 for item in items for part in item.stem.split("/"))
    assert items[0].file_name.endswith(f"/{long}1.png"), "the picture keeps its name"


def test_lines_of_a_list_that_are_nothing_are_failures(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / " odd\x85.png").write_bytes(encoded())
    (tmp_path / "list.txt").write_text("empty\nno*.png\ngone.png\n odd\x85.png\n./ odd\x85.png\n")
    holdings = look_through(Collection(str(tmp_path / "list.txt")), skip=tmp_path / "out")
    assert [item.stem for item in holdings.items] == ["empty", "no*.png", "gone", " odd\x85"]
    assert [item.problem is None for item in holdings.items] == [False, False, True, True]
    assert holdings.skips.counts == {Reason.NAMED_BEFORE: 1}


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("missing", "no picture"),
        ("a.tar.gz", "compressed"),
        ("empty.txt", "names no file"),
        ("empty", "holds no pictures"),
    ],
)
def test_inputs_that_are_none(tmp_path, argument, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.txt").write_text("# nothing\n")
    with pytest.raises(ValueError, match=message):
        found(tmp_path / argument, tmp_path)
    with pytest.raises(ValueError, match="expected seconds"):
        found(tmp_path, tmp_path, every=0)


def test_films(tmp_path):
    """Two seconds at 10 frames a second, each frame a brightness of its own."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as film:
        stream = film.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = 64, 48, "yuv420p", 7
        for number in range(20):
            for packet in stream.encode(
                av.VideoFrame.from_ndarray(np.full((48, 64, 3), 10 * number + 20, np.uint8), format="rgb24")
            ):
                film.mux(packet)
        for packet in stream.encode():
            film.mux(packet)
    items = found(tmp_path / "clip.mp4", tmp_path, every=0.5)
    assert [item.stem for item in items] == [f"clip/{time:09}" for time in (0, 500, 1000, 1500)]
    for item, frame in zip(items, (0, 5, 10, 15), strict=True):
        assert read_picture(item.read()).mean() == pytest.approx(10 * frame + 20, abs=4)
    assert len(found(tmp_path / "clip.mp4", tmp_path, every=0.01)) == 20, "there are no more frames than that"
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    with pytest.raises(ValueError, match="damaged, or no film"):
        found(tmp_path / "bad.mp4", tmp_path)[0].read()
