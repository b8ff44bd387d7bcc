"""What is counted, in Prometheus' text format."""

import threading
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
PICTURES = (1, 2, 4, 8, 16, 32)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Histogram:
    """Counts values by the smallest bound that is not below them."""

    def __init__(self, bounds: tuple[float, ...]):
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def lines(self, name: str) -> Iterable[str]:
        total = 0
        for bound, count in zip((*self.bounds, "+Inf"), self.counts, strict=True):
            total += count
            yield f'{name}_bucket{{le="{bound}"}} {total}'
        yield f"{name}_sum {self.sum:.6f}"
        yield f"{name}_count {total}"


class Metrics:
    """All counts of a server; any thread may add to them."""

    def __init__(self):
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._model_seconds: defaultdict[str, float] = defaultdict(float)
        self._latency, self._batches = Histogram(SECONDS), Histogram(PICTURES)

    def answered(self, path: str, status: int, seconds: float, *, timed: bool) -> None:
        """Count a request; its time too if `timed`.

        Args:
            path: The route's, so that their number is bounded.
        """
        with self._lock:
            self._requests[path, status] += 1
            if timed:
                self._latency.add(seconds)

    def ran(self, model: str, pictures: int, seconds: float) -> None:
        """Count a call of a model."""
        with self._lock:
            self._batches.add(pictures)
            self._model_seconds[model] += seconds

    def text(self, *, waiting: int, inside: int) -> str:
        """Write everything down.

        Args:
            waiting: Requests in the queue, now.
            inside: Requests under way, now.
        """
        with self._lock:
            requests = [
                f'wordmask_requests_total{{path="{path}",status="{status}"}} {count}'
                for (path, status), count in sorted(self._requests.items())
            ]
            spent = [
                f'wordmask_model_seconds_total{{model="{_escape(model)}"}} {seconds:.6f}'
                for model, seconds in sorted(self._model_seconds.items())
            ]
            latency = list(self._latency.lines("wordmask_segment_seconds"))
            batches = list(self._batches.lines("wordmask_batch_pictures"))
        queue, under_way = [f"wordmask_queue_length {waiting}"], [f"wordmask_requests_under_way {inside}"]
        tables = (
            ("requests_total", "counter", "Requests by route and status.", requests),
            ("segment_seconds", "histogram", "From a request for masks to its answer, of those that got one.", latency),
            ("batch_pictures", "histogram", "Pictures that went through a model together.", batches),
            (
                "model_seconds_total",
                "counter",
                "Time spent in each model, words, sizes and masks included.",
                spent,
            ),
            ("queue_length", "gauge", "Requests that wait for the model.", queue),
            ("requests_under_way", "gauge", "Requests for masks that have a place.", under_way),
        )
        lines = []
        for name, kind, help_text, values in tables:
            lines += [f"# HELP wordmask_{name} {help_text}", f"# TYPE wordmask_{name} {kind}", *values]
        return "\n".join(lines) + "\n"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
