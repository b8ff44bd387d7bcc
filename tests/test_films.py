"""Films of every kind whose frames show their own number: each is found at its time, none is lost."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from wordmask.batch.films import moments, read_moment
from wordmask.batch.inputs import Collection, Item, find_items

av = pytest.importorskip("av")

FRAMES, BITS = 40, 6
HEIGHT, WIDTH = 48, 96


def drawn(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A frame with its number in upright bars, the lowest bit at the left; the upper half of each bar is grey."""
    frame = np.full((height, width, 3), 128, np.uint8)
    for bit in range(BITS):
        frame[height // 2 :, bit * width // BITS : (bit + 1) * width // BITS] = 235 if number >> bit & 1 else 20
    return frame


def shown(picture) -> int:
    """The number that a frame shows."""
    grey = np.asarray(picture.convert("L")).astype(int)
    height, width = grey.shape
    assert abs(grey[height // 8, width // 2] - 128) < 30, "upright"
    row = grey[3 * height // 4]
    return sum(int(row[(2 * bit + 1) * width // (2 * BITS)] > 128) << bit for bit in range(BITS))


def film(
    path: Path,
    codec: str,
    *,
    between: int = 0,
    rate: int = 10,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    pixels: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    stamps: Sequence[int] = (),
    form: str | None = None,
    rotation: int = 0,
) -> Path:
    """Write a film of `FRAMES` frames.

    Args:
        between: B-frames in a row.
        stamps: When frames are shown, in milliseconds; else at an even rate.
    """
    with av.open(str(path), "w", format=form, options=container or {}) as made:
        stream = made.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = size
        stream.pix_fmt = pixels
        stream.codec_context.gop_size, stream.codec_context.max_b_frames = 12, between
        if stamps:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(FRAMES):
            frame = av.VideoFrame.from_ndarray(drawn(number, *size), format="rgb24")
            if stamps:
                frame.pts, frame.time_base = stamps[number], Fraction(1, 1000)
            made.mux(stream.encode(frame))
        made.mux(stream.encode())
    return path


def items_of(path: Path, every: float = 0.001) -> list[Item]:
    return find_items(Collection(str(path), every=every), skip=path.parent / "out")


def times_of(items: list[Item]) -> list[int]:
    return [int(item.stem.rpartition("/")[2]) for item in items]


def outcome_of(item: Item) -> int | str:
    """The number that a frame shows, or why it can't be read."""
    try:
        return shown(item.read())
    except ValueError as error:
        return str(error)


X264_OPEN = {"x264-params": "open-gop=1:keyint=12:min-keyint=12"}
X264_REFRESH = {"x264-params": "intra-refresh=1:keyint=12"}
QUIET = {"x265-params": "log-level=none"}
FIELDS = {"flags": "+ildct+ilme"}
KINDS = {  # what is in a file of this name
    "plain.mp4": {"codec": "libx264"},
    "between.mp4": {"codec": "libx264", "between": 3},
    "open.mp4": {"codec": "libx264", "between": 3, "options": X264_OPEN},
    "phone.3gp": {"codec": "h263", "size": (144, 176)},
    "hevc.mov": {"codec": "libx265", "between": 2, "options": QUIET},
    "ten_bits.mov": {"codec": "prores", "pixels": "yuv422p10le"},
    "between.avi": {"codec": "mpeg4", "between": 2},
    "x264.avi": {"codec": "libx264", "between": 3},
    "motion.avi": {"codec": "mjpeg", "pixels": "yuvj420p"},
    "between.mkv": {"codec": "libx264", "between": 3},
    "ten_bits.mkv": {"codec": "libx264", "between": 2, "pixels": "yuv420p10le"},
    "odd.mkv": {"codec": "ffv1", "size": (47, 95), "pixels": "yuv444p"},
    "vp8.webm": {"codec": "libvpx", "options": {"auto-alt-ref": "1", "lag-in-frames": "16"}},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "h264.ts": {"codec": "libx264", "between": 3},
    "refresh.ts": {"codec": "libx264", "options": X264_REFRESH},
    "mpeg2.ts": {"codec": "mpeg2video", "between": 2, "rate": 25},
    "interlaced.ts": {"codec": "mpeg2video", "between": 2, "rate": 25, "options": FIELDS},
    "camera.m2ts": {"codec": "libx264", "between": 2, "container": {"mpegts_m2ts_mode": "1"}},
    "camera.mts": {"codec": "libx264", "between": 2, "container": {"mpegts_m2ts_mode": "1"}, "form": "mpegts"},
    "programme.mpg": {"codec": "mpeg2video", "between": 2, "rate": 25},
    "mpeg1.mpg": {"codec": "mpeg1video", "between": 2, "rate": 25},
    "disc.vob": {"codec": "mpeg2video", "between": 2, "rate": 25},
    "bare.m2v": {"codec": "mpeg2video", "between": 2, "rate": 25, "form": "mpeg2video"},
    "windows.wmv": {"codec": "wmv2"},
    "flash.flv": {"codec": "flv"},
    "h264.flv": {"codec": "libx264", "between": 2},
    "studio.mxf": {"codec": "mpeg2video", "rate": 25},
}


@pytest.mark.parametrize("name", KINDS)
def test_every_frame_is_found_at_its_time(tmp_path, name):
    rate = KINDS[name].get("rate", 10)
    path = film(tmp_path / name, **KINDS[name])
    items = items_of(path)
    assert times_of(items) == [number * 1000 // rate for number in range(FRAMES)]
    assert [shown(item.read()) for item in items] == list(range(FRAMES))
    some = items_of(path, every=7 / rate)
    assert [shown(item.read()) for item in reversed(some)] == [*range(0, FRAMES, 7)][::-1], "in any order"


def test_uneven_times_and_a_late_beginning(tmp_path):
    """A frame's name is the time since the first."""
    uneven = [100 * number + 37 * number % 60 for number in range(FRAMES)]
    items = items_of(film(tmp_path / "uneven.mp4", "libx264", between=2, stamps=uneven))
    assert times_of(items) == uneven
    assert [shown(item.read()) for item in items] == list(range(FRAMES))
    late = [5000 + 100 * number for number in range(FRAMES)]
    for name in ("late.mkv", "late.mp4", "late.ts", "late.flv"):
        items = items_of(film(tmp_path / name, "libx264", between=2, stamps=late), every=0.5)
        assert times_of(items) == [*range(0, 4000, 500)], name
        assert [shown(item.read()) for item in items] == [*range(0, FRAMES, 5)], name


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_turned_film_is_upright(tmp_path, rotation):
    """The camera's picture lies on its side; players turn it by what the film says."""
    turns = {90: 1, 180: 2, -90: 3}[rotation]  # counter-clockwise quarters that the display matrix makes
    with av.open(str(tmp_path / "turned.mp4"), "w") as made:
        stream = made.add_stream("libx264", rate=10)
        lying = np.rot90(drawn(37), -turns)
        stream.height, stream.width = lying.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.set_display_rotation(rotation)
        made.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(lying), format="rgb24")))
        made.mux(stream.encode())
    (item,) = items_of(tmp_path / "turned.mp4")
    assert item.read().size == (WIDTH, HEIGHT)
    assert shown(item.read()) == 37


def test_a_mirrored_film_is_shown_as_players_do(tmp_path):
    path = film(tmp_path / "mirrored.mp4", "libx264", rotation=180)
    content = bytearray(path.read_bytes())
    at = content.index(b"tkhd") + 4 + 40  # behind them nine numbers of four bytes
    matrix = np.array([-1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30], ">i4")
    content[at : at + 36] = matrix.tobytes()
    path.write_bytes(content)
    item = items_of(path)[5]
    mirrored = np.asarray(item.read())[:, ::-1]
    assert np.abs(mirrored.astype(int) - drawn(5)).mean() < 12


@pytest.mark.parametrize("name", ["h264.ts", "mpeg2.ts", "programme.mpg"])
def test_two_recordings_in_one_file(tmp_path, name):
    """Times begin anew in the middle."""
    whole = film(tmp_path / name, **KINDS[name]).read_bytes()
    (tmp_path / f"twice.{name}").write_bytes(whole + whole)
    items = items_of(tmp_path / f"twice.{name}")
    assert [shown(item.read()) for item in items] == [*range(FRAMES), *range(FRAMES)]
    assert times_of(items) == sorted(set(times_of(items)))


@pytest.mark.parametrize("name", ["h264.ts", "mpeg2.ts", "programme.mpg"])
def test_a_recording_that_begins_in_the_middle(tmp_path, name):
    """What can't be decoded before the first key frame is not a frame."""
    whole = film(tmp_path / name, **KINDS[name]).read_bytes()
    (tmp_path / f"late.{name}").write_bytes(whole[len(whole) // 188 // 3 * 188 :])
    items = items_of(tmp_path / f"late.{name}")
    numbers = [shown(item.read()) for item in items]
    assert 3 < len(numbers) < FRAMES
    assert numbers == list(range(numbers[0], FRAMES))
    assert times_of(items)[0] == 0


@pytest.mark.parametrize("name", ["between.mkv", "vp9.webm", "h264.flv", "motion.avi", "between.mp4"])
def test_a_film_that_is_cut_off_says_so(tmp_path, name):
    """What is there is read; that the rest is lost is a failure of its own."""
    path = film(tmp_path / name, **KINDS[name], **({"container": {"movflags": "+faststart"}} if "mp4" in name else {}))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 3 // 4])
    *items, last = items_of(path)
    assert 4 < len(items) < FRAMES - 8
    assert "ends early" in last.problem
    outcomes = [outcome_of(item) for item in items]
    assert outcomes[:-1] == list(range(len(items) - 1)), "the last is cut itself"


def test_damage_is_named_and_the_rest_is_read(tmp_path):
    path = film(tmp_path / "damaged.ts", **KINDS["h264.ts"])
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000 : 7] = bytes(len(range(middle, middle + 3000, 7)))
    path.write_bytes(content)
    outcomes = [outcome_of(item) for item in items_of(path)]
    numbers = [outcome for outcome in outcomes if isinstance(outcome, int)]
    assert all("the film is damaged there" in outcome for outcome in outcomes if isinstance(outcome, str))
    assert numbers[:12] == list(range(12))
    assert numbers[-8:] == list(range(FRAMES - 8, FRAMES))


def test_sound_alone_and_a_cover_are_no_film(tmp_path):
    for name in ("sound.mp4", "cover.mp4"):
        with av.open(str(tmp_path / name), "w") as made:
            sound = made.add_stream("aac", rate=44100)
            if name == "cover.mp4":
                cover = made.add_stream("mjpeg", rate=1)
                cover.height, cover.width, cover.pix_fmt = HEIGHT, WIDTH, "yuvj420p"
                cover.disposition = av.stream.Disposition.attached_pic
                made.mux(cover.encode(av.VideoFrame.from_ndarray(drawn(1), format="rgb24")))
                made.mux(cover.encode())
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate = 44100
            made.mux(sound.encode(silence))
            made.mux(sound.encode())
        (item,) = items_of(tmp_path / name)
        assert "there are no pictures in it, only sound" in item.problem, name


def test_of_two_streams_the_first(tmp_path):
    with av.open(str(tmp_path / "two.mkv"), "w") as made:
        streams = [made.add_stream("ffv1", rate=10) for _ in range(2)]
        for stream in streams:
            stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv444p"
        for number in range(5):
            for place, stream in enumerate(streams):
                made.mux(stream.encode(av.VideoFrame.from_ndarray(drawn(number + 30 * place), format="rgb24")))
        for stream in streams:
            made.mux(stream.encode())
    assert [shown(item.read()) for item in items_of(tmp_path / "two.mkv")] == list(range(5))


def test_programs_that_end_like_films_are_none(tmp_path):
    film(tmp_path / "film.ts", **KINDS["h264.ts"])
    (tmp_path / "index.ts").write_text("export const word = 'größe'\n" * 400)
    (tmp_path / "module.mts").write_text("")
    assert {item.stem.partition("/")[0] for item in items_of(tmp_path)} == {"film", "module"}, "an empty file is named"


def test_an_intact_programme_stream_and_a_cut_with_an_edit_list(shared):
    folder = shared / "cases" / "films"
    for name, count in (("i.mpg", 40), ("e_editlist.mp4", 27)):
        with av.open(str(folder / name)) as opened:
            expected = [np.asarray(frame.to_image()) for frame in opened.decode(video=0)]
        chosen, problem = moments(folder / name, every=0.01)
        assert problem is None
        assert [moment.name for moment in chosen] == [f"{100 * number:09}.jpg" for number in range(count)]
        for moment, picture in zip(chosen, expected, strict=True):
            assert np.array_equal(np.asarray(read_moment(folder / name, moment)), picture)


def test_a_trimmed_film_begins_where_it_is_cut(tmp_path):
    """An edit list leaves out what comes before; the decoder needs it all the same."""
    path = film(tmp_path / "trimmed.mp4", "libx264", between=3)
    content = path.read_bytes()
    at = content.index(b"elst")
    entry = at + 4 + 4 + 4  # version, count; then duration, media time and rate
    start = int.from_bytes(content[entry + 4 : entry + 8], "big")
    unit = int.from_bytes(content[content.index(b"mdhd") + 16 :][:4], "big")
    moved = start + 13 * unit // 10  # 1.3 s later
    path.write_bytes(content[: entry + 4] + moved.to_bytes(4, "big") + content[entry + 8 :])
    items = items_of(path)
    assert times_of(items) == [100 * number for number in range(FRAMES - 13)]
    assert [shown(item.read()) for item in items] == list(range(13, FRAMES))
