"""Films: which moments are looked at, and their pictures."""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType

    from PIL.Image import Image

FILM_FILES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
LEAST_STEP = 10**6  # of a second


@dataclass(frozen=True)
class Moment:
    """A frame of a film.

    Args:
        name: The time since the first frame, in milliseconds, and an ending.
        stamp: Its presentation time in the stream's own unit: which frame it is.
    """

    name: str
    stamp: int


def moments(path: Path, every: float) -> list[Moment]:
    """List the first frame at or after each multiple of `every` seconds. The packets are counted, not decoded.

    Raises:
        ValueError: It is no film that can be read, or PyAV is missing.
    """
    av = need_av(path)
    try:
        with av.open(str(path)) as film:
            if not film.streams.video:
                raise ValueError("there are no pictures in it, only sound.")
            stream = film.streams.video[0]
            stamps = sorted({packet.pts for packet in film.demux(stream) if packet.pts is not None})
            unit = stream.time_base
    except av.error.FFmpegError as error:
        raise ValueError(f"it is damaged, or no film: {error.strerror}.") from None
    if not stamps:
        raise ValueError("there is no frame in it.")
    chosen, due, step = [], Fraction(0), max(Fraction(every).limit_denominator(LEAST_STEP), Fraction(1, LEAST_STEP))
    for stamp in stamps:
        time = (stamp - stamps[0]) * unit
        if time >= due:
            chosen.append(Moment(f"{round(time * 1000):09}.jpg", stamp))
            due = (time // step + 1) * step
    return chosen


def read_moment(path: Path, moment: Moment) -> "Image":
    """Decode one frame, upright as the film's rotation says.

    Raises:
        ValueError: It is damaged.
    """
    av = need_av(path)
    try:
        with av.open(str(path)) as film:
            stream = film.streams.video[0]
            film.seek(moment.stamp, stream=stream)  # to the key frame before
            for frame in film.decode(stream):
                if frame.pts == moment.stamp:
                    return frame.to_image().rotate(frame.rotation, expand=True)
    except av.error.FFmpegError as error:
        raise ValueError(f"The frame {moment.name} of {str(path)!r} is damaged: {error.strerror}.") from None
    raise ValueError(f"The frame {moment.name} of {str(path)!r} can't be decoded.")


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
