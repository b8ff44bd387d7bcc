"""Who may come in: limits of size, places and rate, each with its own honest refusal."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MINUTE = 60.0
MOST_CLIENTS = 10_000  # whose rate is remembered; those whose minute is over are forgotten first


@dataclass(frozen=True)
class Limits:
    """What the server accepts; each has an option of `wordmask serve`.

    Args:
        upload: Bytes of a picture's file; more gives 413.
        pixels: Of a picture, by its header, before it is decoded; more gives 413.
        words: Names in a request, synonyms counted; more gives 422.
        queue: Requests under way, from their first byte to their last; the next gets 503.
        rate: Requests a minute from one client; more get 429. 0 is no limit.
        seconds: From a request's first byte to its last; what takes longer gets 503.
        batch: Pictures that go through a model together.
    """

    upload: int = 20 * 10**6
    pixels: int = 25 * 10**6
    words: int = 300
    queue: int = 32
    rate: int = 240
    seconds: float = 60.0
    batch: int = 4


class Refused(Exception):
    """A request that is not served.

    Args:
        status: Of HTTP.
        retry: Seconds after which it makes sense to come again, if it does.
    """

    def __init__(self, status: int, detail: str, retry: float | None = None):
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = {} if retry is None else {"Retry-After": str(max(1, math.ceil(retry)))}


class Gate:
    """Counts who is inside, and how often each client came. Lives in the event loop's thread."""

    def __init__(self, limits: Limits):
        self.limits = limits
        self.inside = 0
        self.stopping = False
        self._due: dict[str, float] = {}  # client → when all it has asked for would have been evenly spread

    def admit(self, client: str, now: float) -> None:
        """Count a request against its client's rate: a minute's worth may come at once, then one every 1/rate of a
        minute.

        Raises:
            Refused: 429, with the seconds until the next one is admitted.
        """
        if not self.limits.rate:
            return
        step = MINUTE / self.limits.rate
        due = max(self._due.get(client, now), now) + step
        if due - now > MINUTE + step / 2:  # half a step, against rounding
            wait = due - now - MINUTE
            raise Refused(
                429,
                f"More than {self.limits.rate} requests a minute came from {client}. Come again in {wait:.1f} s.",
                wait,
            )
        if len(self._due) >= MOST_CLIENTS:
            self._due = {name: time for name, time in self._due.items() if time > now}
        if len(self._due) >= MOST_CLIENTS:
            del self._due[next(iter(self._due))]
        self._due[client] = due

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places.

        Raises:
            Refused: 503, as all are taken, or the server is about to stop.
        """
        if self.stopping:
            raise Refused(
                503,
                "The server is about to stop: it finishes what it has begun and takes nothing new.",
                self.limits.seconds,
            )
        if self.inside >= self.limits.queue:
            raise Refused(503, f"All {self.limits.queue} places are taken. Come again in a second.", 1)
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1
