"""Which frames a film shows, and when."""

from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import NamedTuple

from wordmask.batch.film_packets import MATROSKA, MP4, Key, Stored, decoded, keys_among, need_av, opened, stored_packets

TIMED = (MP4, MATROSKA, "flv", "mpegts", "mpeg", "asf", "mxf")  # formats that store when a frame is shown
WITH_HIDDEN_PACKETS = ("vp8",)  # codecs whose packets may show nothing
PROBED = 64  # frames that are decoded to see whether stored times are true
USUAL_RATE = 25  # frames a second, where a film says nothing of it


class ShownFrame(NamedTuple):
    """A frame that is shown.

    Args:
        time: Seconds since the first.
        packet: How many packets come before the one it is in.
    """

    time: Fraction
    packet: int


class FilmContents(NamedTuple):
    """What a film shows, where decoding can begin, and what is wrong with it, if something is."""

    frames: list[ShownFrame]
    keys: list[Key]
    problem: str | None


def contents_of(path: Path) -> FilmContents:
    """List the frames of a film in the order they are shown.

    Where a film stores when each is shown, packets are counted and not decoded. Where it doesn't, or what it says is
    not what is decoded, the whole film is decoded once to know.

    Raises:
        ValueError: It is no film that can be read, or PyAV is missing.
    """
    av = need_av(path)
    try:
        with opened(path) as (film, stream):
            (packets, problem), unit = stored_packets(film, stream), stream.time_base
            is_timed = film.format.name in TIMED or all(packet.is_key for packet in packets)
            is_timed = is_timed and stream.codec_context.name not in WITH_HIDDEN_PACKETS
        if is_timed and _can_be_true(packets) and _is_as_decoded(path, packets):
            frames = _frames_by_stamps(packets, unit)
        else:
            frames = _frames_by_decoding(path, packets)
        return FilmContents(frames, keys_among(packets), problem)
    except av.error.FFmpegError as error:
        raise ValueError(f"it is damaged, or no film: {error.strerror}.") from None


def _can_be_true(packets: list[Stored]) -> bool:
    """Tell whether every frame has a time of its own, and none goes back."""
    stamps = [packet.shown_at for packet in packets]
    due = [packet.decoded_at for packet in packets if packet.decoded_at is not None]
    goes_forward = all(earlier < later for earlier, later in pairwise(due))
    return goes_forward and bool(packets) and None not in stamps and len(set(stamps)) == len(stamps)


def _in_order_of_showing(packets: list[Stored]) -> list[int]:
    shown = (number for number, packet in enumerate(packets) if packet.is_shown)
    return sorted(shown, key=lambda number: packets[number].stamp or 0)


def _is_as_decoded(path: Path, packets: list[Stored]) -> bool:
    """Tell whether the first frames come out of the decoder in the order of their stored times."""
    with opened(path) as (film, stream):
        numbers = [number for number, _ in islice(decoded(film.demux(stream)), PROBED)]
    return numbers == _in_order_of_showing(packets)[:PROBED]


def _frames_by_stamps(packets: list[Stored], unit: Fraction) -> list[ShownFrame]:
    order = _in_order_of_showing(packets)
    stamps = [packets[number].stamp or 0 for number in order]
    return [ShownFrame((stamp - stamps[0]) * unit, number) for stamp, number in zip(stamps, order, strict=True)]


def _frames_by_decoding(path: Path, packets: list[Stored]) -> list[ShownFrame]:
    with opened(path) as (film, stream):
        came = [(number, frame.dts) for number, frame in decoded(film.demux(stream))]
        unit, rate = stream.time_base, Fraction(stream.average_rate or USUAL_RATE)
    numbers, due, step = [number for number, _ in came], [stamp for _, stamp in came], 1 / (rate * unit)
    stored = [packets[number].shown_at for number in numbers]
    stamps = _forward(stored, step) or _forward(due, step) or [number * step for number in range(len(came))]
    return [ShownFrame((stamp - stamps[0]) * unit, number) for stamp, number in zip(stamps, numbers, strict=True)]


def _forward(stamps: list[int | None], step: Fraction) -> list[Fraction]:
    """Stamps where they go forward from frame to frame, else none; those that the last frames lack are a step apart."""
    filled: list[Fraction] = []
    for stamp in stamps:
        if stamp is not None:
            filled.append(Fraction(stamp))
        elif filled:
            filled.append(filled[-1] + step)
    goes_forward = len(filled) == len(stamps) and all(earlier < later for earlier, later in pairwise(filled))
    return filled if goes_forward else []
