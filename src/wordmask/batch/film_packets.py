"""The packets of a film, and what the decoder makes of them.

A packet holds one frame. Packets come in the order of decoding, frames in the order of showing. Decoders hand on what a
packet says its time is: a packet's number is put there, and tells which packet a frame was in. So no time has to be
trusted to find a frame again: not in films that store none (AVI), nor where it depends on where reading began (MPEG).
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from types import ModuleType

# PyAV is an extra, whose types are not always there
Film = Any
Stream = Any
Packet = Any
VideoFrame = Any

MP4, MATROSKA = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm"  # as FFmpeg names them
SAY_THEIR_LENGTH = (MATROSKA, "flv", "avi")  # in a header, which a film that is cut off still has
MISSED = 1  # seconds: what a film is shorter than it says, before that is told
MICROSECONDS = 10**6  # in a second: the unit of a film's own length


class Key(NamedTuple):
    """A packet that needs no other: where decoding can begin.

    Args:
        packet: How many packets come before it.
        stamp: Its time, in the stream's own unit: where to seek it.
        position: Where it lies in the file, in bytes: how it is known.
    """

    packet: int
    stamp: int
    position: int


class Stored(NamedTuple):
    """What a packet says of itself; times in the stream's own unit."""

    shown_at: int | None
    decoded_at: int | None
    position: int | None
    is_key: bool
    is_shown: bool

    @property
    def stamp(self) -> int | None:
        """When it is due, as far as is known."""
        return self.decoded_at if self.shown_at is None else self.shown_at


@contextmanager
def opened(path: Path) -> Iterator[tuple[Film, Stream]]:
    """Open a film: its pictures are those of the stream that is marked as the usual one, else of the first.

    Raises:
        ValueError: There are none; a cover of music is no film.
    """
    av = need_av(path)
    with av.open(str(path)) as film:
        cover, usual = av.stream.Disposition.attached_pic, av.stream.Disposition.default
        streams = [stream for stream in film.streams.video if not stream.disposition & cover]
        if not streams:
            raise ValueError("there are no pictures in it, only sound.")
        yield film, max(streams, key=lambda stream: bool(stream.disposition & usual))  # of equals, the first


def decoded(packets: Iterable[Packet], first: int = 0) -> Iterator[tuple[int, VideoFrame]]:
    """Decode packets as players do: what is damaged is left out, and the rest goes on. Yield the number of each frame's
    packet, and the frame.

    Args:
        first: The number of the first packet.
    """
    from av.error import FFmpegError

    number = first
    for packet in _until_damage(packets):
        if packet.size:
            packet.pts = number
            number += 1
        try:
            for frame in packet.decode():
                if frame.pts is not None:
                    yield frame.pts, frame
        except (FFmpegError, EOFError):
            continue


def _until_damage(packets: Iterable[Packet]) -> Iterator[Packet]:
    """Packets as far as a film can be read, and an empty one, for which the decoder gives what it still has."""
    from av.error import FFmpegError

    last = None
    try:
        for packet in packets:
            yield packet
            last = packet
    except FFmpegError:
        if last is not None:
            empty = type(last)(0)
            empty.stream = last.stream
            yield empty


def stored_packets(film: Film, stream: Stream) -> tuple[list[Stored], str | None]:
    """All packets of the pictures; sound is looked at as well, to know where the film ends."""
    from av.error import FFmpegError

    packets, end, problem = [], Fraction(0), None
    try:
        for packet in film.demux():
            if not packet.size:
                continue
            stored = Stored(packet.pts, packet.dts, packet.pos, packet.is_keyframe, not packet.is_discard)
            if stored.stamp is not None:
                end = max(end, (stored.stamp + (packet.duration or 0)) * packet.time_base)
            if packet.stream.index == stream.index:
                packets.append(stored)
    except FFmpegError as error:
        problem = f"it is damaged or ends early: {error.strerror}. What comes after is lost."
    return packets, problem or _what_is_missing(film, stream, end)


def _what_is_missing(film: Film, stream: Stream, end: Fraction) -> str | None:
    """Say that a film is cut off, where that can be known.

    Args:
        end: Seconds: where its last packet ends.
    """
    if film.format.name == MP4 and _is_cut_off(Path(film.name)):
        return "it ends early: the file is shorter than it says. What comes after is lost."
    says = Fraction(film.duration or 0, MICROSECONDS)
    if film.format.name == "avi" and stream.average_rate:  # it guesses a length from what is there
        says = max(says, stream.frames / stream.average_rate)
    if film.format.name in SAY_THEIR_LENGTH and says > end + MISSED:
        return f"it ends early: it says that it lasts {float(says):.1f} s, and has {float(end):.1f} s of them."
    return None


def _is_cut_off(path: Path) -> bool:
    """Tell whether the last box of an MP4 file ends behind the file (ISO 14496-12, 4.2: four bytes of size, a type, and
    eight of size where the four say 1; 0 is up to the end)."""
    whole, here = path.stat().st_size, 0
    with path.open("rb") as file:
        while here < whole:
            file.seek(here)
            head = file.read(16)
            size = int.from_bytes(head[:4], "big")
            if size == 0:
                return False
            if size == 1:
                size = int.from_bytes(head[8:16], "big")
            if size < 8:  # no box: something stands behind the film
                return False
            here += size
    return here > whole


def keys_among(packets: list[Stored]) -> list[Key]:
    """The packets where decoding can begin, as far as they can be found again."""
    here = Counter(packet.position for packet in packets if packet.is_key)
    return [
        Key(number, packet.stamp, packet.position)
        for number, packet in enumerate(packets)
        if packet.is_key and packet.stamp is not None and packet.position is not None and here[packet.position] == 1
    ]


def need_av(path: Path) -> "ModuleType":
    """Return PyAV.

    Raises:
        ValueError: It is not installed.
    """
    try:
        import av
    except ImportError:
        raise ValueError(
            f"{str(path)!r} is a film, and reading films needs PyAV. Install it: pip install 'wordmask[video]'."
        ) from None
    return av
