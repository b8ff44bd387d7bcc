"""The one thread that owns the models: a queue feeds it, and what fits together goes through a model together."""

import logging
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

from wordmask.image import read_any
from wordmask.pixels import PictureFile, ReadPicture
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Segmenter
from wordmask.serve.metrics import Metrics
from wordmask.settings import Settings
from wordmask.vocabulary import Vocabulary

MOST_PHRASES = 20_000  # whose vectors stay in memory: 40 to 60 MB
LARGEST_TEXT_CACHE = 500 * 10**6  # bytes of the file of vectors, after which new words are no longer added to it

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ServerJob:
    """A picture that waits for a model.

    Args:
        picture: Its header was read; it is not decoded.
        input_size: (height, width) of the pixels that the model will see.
        settings: As they were asked for.
    """

    model: str
    picture: PictureFile
    input_size: tuple[int, int]
    words: Vocabulary
    settings: Settings
    future: Future[Segmentation] = field(default_factory=Future)

    def fits(self, other: "ServerJob") -> bool:
        """Tell whether both may go through the model in one call."""
        return (self.model, self.input_size, self.settings, self.words) == (
            other.model,
            other.input_size,
            other.settings,
            other.words,
        )


class ModelWorker:
    """Runs jobs in the order they came; later ones that fit the first go with it, as many as a batch holds.

    Args:
        segmenters: By name; nobody else may call them.
    """

    def __init__(self, segmenters: Mapping[str, Segmenter], metrics: Metrics):
        self.segmenters = segmenters
        self.metrics = metrics
        self._waiting: deque[ServerJob] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="wordmask-model", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def submit(self, job: ServerJob) -> Future[Segmentation]:
        """Queue a job; cancelling its future takes it out, unless it has begun."""
        with self._changed:
            self._waiting.append(job)
            self._changed.notify()
        return job.future

    def close(self) -> None:
        """Finish what is queued, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while self._step():  # whose locals end with it: while the thread waits, it holds no picture
            pass

    def _step(self) -> bool:
        jobs = self._next()
        pictures = {job: picture for job in jobs if (picture := _decoded(job)) is not None}
        if pictures:
            self._segment(pictures)
        return bool(jobs)

    def _next(self) -> list[ServerJob]:
        """Wait for a job, and take those that fit it along; none once the queue is closed and empty."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if not self._waiting:
                    return []
                first = self._waiting[0]
                fitting = [job for job in self._waiting if job is first or job.fits(first)][
                    : self.segmenters[first.model].batch
                ]
                for job in fitting:
                    self._waiting.remove(job)
                if wanted := [job for job in fitting if job.future.set_running_or_notify_cancel()]:
                    return wanted

    def _segment(self, pictures: dict[ServerJob, ReadPicture]) -> None:
        """Segment pictures together; if that fails, each alone, so that one disturbs no other."""
        first = next(iter(pictures))
        segmenter, begin = self.segmenters[first.model], time.perf_counter()
        try:
            results = segmenter([read.rgb for read in pictures.values()], first.words, first.settings)
        except Exception as error:  # whatever it is, it belongs to the one who asked, and the thread goes on
            if len(pictures) > 1:
                for job, picture in pictures.items():
                    self._segment({job: picture})
                return
            if not isinstance(error, ValueError):
                log.exception("A picture failed in %s.", first.model)
            first.future.set_exception(error)
            return
        finally:
            _trim(segmenter)
        self.metrics.ran(first.model, len(pictures), time.perf_counter() - begin)
        for (job, read), result in zip(pictures.items(), results, strict=True):
            job.future.set_result(replace(result, origin=replace(result.origin, notes=read.notes)))


def _decoded(job: ServerJob) -> ReadPicture | None:
    """The picture's pixels, and what was assumed; None if it has none, which its future then says."""
    try:
        return read_any(job.picture)
    except Exception as error:  # whatever it is, it belongs to the one who asked, and the thread goes on
        job.future.set_exception(error)
        return None


def _trim(segmenter: Segmenter) -> None:
    """Keep what is remembered of words bounded, in memory and on the disk."""
    text = segmenter.text
    if len(text.vectors) > MOST_PHRASES:
        text.vectors.clear()
    if text.file is not None and text.file.is_file() and text.file.stat().st_size > LARGEST_TEXT_CACHE:
        text.file = None
