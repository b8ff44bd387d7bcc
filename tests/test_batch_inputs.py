import io
import tarfile

import numpy as np
import pytest
from PIL import Image

from conftest import colourful
from wordmask.batch.inputs import Collection, find_items
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
