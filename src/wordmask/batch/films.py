"""Films: which moments are looked at, and their pictures."""

import codecs
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from wordmask.batch.film_frames import contents_of
from wordmask.batch.film_packets import Film, Key, Packet, Stream, VideoFrame, decoded, need_av, opened

if TYPE_CHECKING:
    from PIL.Image import Image

FILM_FILES = (
    *(".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".avi", ".divx", ".mkv", ".webm", ".ogv", ".flv", ".f4v"),
    *(".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".m2t", ".wmv", ".asf", ".mxf", ".dv"),
)
ALSO_TEXT = (".ts", ".mts")  # programs in TypeScript, and translations, end like this too
HEAD = 4096  # bytes of a file that tell text from a film
LEAST_STEP = 10**6  # of a second
TRIED = 2  # key frames before a frame: from the last one alone a decoder may not get it whole
BACK = (0, 1, 8, 64)  # seconds before a key frame that are sought in turn: some formats land behind what is asked for
HELD = 128  # packets after a frame's own, by which a decoder has given it, or never will
ONE = 1 << 16  # in a display matrix


@dataclass(frozen=True)
class Moment:
    """A frame of a film.

    Args:
        name: The time since the first frame, in milliseconds, and an ending.
        packet: How many packets come before the one it is in.
        keys: Where decoding can begin, the best place first; none: at the start.
    """

    name: str
    packet: int
    keys: tuple[Key, ...]


def moments(path: Path, every: float) -> tuple[list[Moment], str | None]:
    """List the first frame at or after each multiple of `every` seconds; also say what is wrong with the film, if
    something is.

    Raises:
        ValueError: It is no film that can be read, or PyAV is missing.
    """
    contents = contents_of(path)
    if not contents.frames:
        raise ValueError(contents.problem or "there is no frame in it.")
    chosen, due, step = [], Fraction(0), max(Fraction(every).limit_denominator(LEAST_STEP), Fraction(1, LEAST_STEP))
    for frame in contents.frames:
        if frame.time >= due:
            after = bisect_right(contents.keys, frame.packet, key=lambda key: key.packet)
            keys = tuple(reversed(contents.keys[max(0, after - TRIED) : after]))
            chosen.append(Moment(f"{round(frame.time * 1000):09}.jpg", frame.packet, keys))
            due = (frame.time // step + 1) * step
    return chosen, contents.problem


def read_moment(path: Path, moment: Moment) -> "Image":
    """Decode one frame, upright as the film's rotation says: from the key frame before it, or where that can't be
    found, from the start.

    Raises:
        ValueError: It is damaged.
    """
    av = need_av(path)
    try:
        for frame in _tries(path, moment):
            if frame is not None and not frame.is_corrupt:
                return upright(frame)
    except av.error.FFmpegError as error:
        raise ValueError(f"The frame {moment.name} of {str(path)!r} is damaged: {error.strerror}.") from None
    raise ValueError(f"The frame {moment.name} of {str(path)!r} can't be decoded: the film is damaged there.")


def is_film(path: Path) -> bool:
    """Tell films from programs and translations whose names end like theirs. A file that can't be read may be one."""
    if path.suffix.lower() not in ALSO_TEXT:
        return True
    try:
        with path.open("rb") as file:
            head = file.read(HEAD)
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except (OSError, UnicodeDecodeError):
        return True
    return not head or b"\0" in head


def upright(frame: VideoFrame) -> "Image":
    """The picture of a frame, turned and mirrored as players show it."""
    from PIL import Image

    turns = {  # where x and y of a stored pixel go: x' = a·x + c·y, y' = b·x + d·y
        (-1, 0, 0, 1): Image.Transpose.FLIP_LEFT_RIGHT,
        (1, 0, 0, -1): Image.Transpose.FLIP_TOP_BOTTOM,
        (-1, 0, 0, -1): Image.Transpose.ROTATE_180,
        (0, 1, -1, 0): Image.Transpose.ROTATE_270,
        (0, -1, 1, 0): Image.Transpose.ROTATE_90,
        (0, 1, 1, 0): Image.Transpose.TRANSPOSE,
        (0, -1, -1, 0): Image.Transpose.TRANSVERSE,
    }
    picture, matrix = frame.to_image(), _display_matrix(frame)
    if matrix == (1, 0, 0, 1):
        return picture
    if matrix in turns:
        return picture.transpose(turns[matrix])
    return picture.rotate(frame.rotation, expand=True)  # by an angle between


def _display_matrix(frame: VideoFrame) -> tuple[int, int, int, int]:
    """(a, b, c, d) of what players do to a frame, rounded: exact for right angles and mirrors."""
    import numpy as np

    stored = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return 1, 0, 0, 1
    a, b, _, c, d, *_ = (np.frombuffer(bytes(stored), np.int32) / ONE).tolist()
    return round(a), round(b), round(c), round(d)


def _tries(path: Path, moment: Moment) -> Iterator[VideoFrame | None]:
    """A frame as it is decoded from each of its key frames, then from the start, unless they were all there."""
    sought = 0
    for key in moment.keys:
        for back in BACK:
            with opened(path) as (film, stream):
                packets = _packets_from(key, film, stream, back)
                if packets is not None:
                    sought += 1
                    yield _frame_of(moment.packet, packets, first=key.packet)
                    break
    if sought < TRIED:
        with opened(path) as (film, stream):
            yield _frame_of(moment.packet, film.demux(stream), first=0)


def _frame_of(wanted: int, packets: Iterable[Packet], *, first: int) -> VideoFrame | None:
    """The frame that is in a packet; None if it doesn't come out of the decoder."""
    for number, frame in decoded(packets, first):
        if number == wanted:
            return frame
        if number > wanted + HELD:
            break
    return None


def _packets_from(key: Key, film: Film, stream: Stream, back: int) -> Iterator[Packet] | None:
    """Packets from a key frame on; None if it isn't met when the film is sought so many seconds before it."""
    from av.error import FFmpegError

    try:
        film.seek(key.stamp - int(back / stream.time_base), stream=stream)
        packets = film.demux(stream)
        for packet in packets:
            if packet.is_keyframe and packet.pos == key.position:
                return chain([packet], packets)
            stamp = packet.dts if packet.pts is None else packet.pts
            if packet.is_keyframe and stamp is not None and stamp > key.stamp:
                return None
    except FFmpegError:
        return None
    return None
