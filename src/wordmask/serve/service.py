"""What the routes share, and how a request for masks is answered."""

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress

import torch
from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from wordmask.pixels import input_size
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Segmenter
from wordmask.serve.answer import as_png, describe
from wordmask.serve.guard import LEFT
from wordmask.serve.limits import Gate, Limits, Refused
from wordmask.serve.metrics import Metrics
from wordmask.serve.reading import JSON, ParsedRequest, limited, read_request
from wordmask.serve.worker import ModelWorker, ServerJob
from wordmask.vocabulary import Vocabulary

# bytes of a refused request that are still read, so that its client sees the answer and not a broken connection
DRAINED = 64 * 10**6
DRAIN_SECONDS = 10.0


class Service:
    """What the routes share.

    Args:
        segmenters: By the name clients know; the first is the default.
    """

    def __init__(self, segmenters: Mapping[str, Segmenter], limits: Limits):
        self.segmenters = segmenters
        self.limits = limits
        self.gate = Gate(limits)
        self.metrics = Metrics()
        self.worker = ModelWorker(segmenters, self.metrics)

    def job(self, asked: ParsedRequest) -> ServerJob:
        """Check a question against its model.

        Raises:
            Refused: 422.
        """
        question, name = asked.question, asked.question.model or next(iter(self.segmenters))
        if name not in self.segmenters:
            raise Refused(422, f"The model came as {name!r}; here are {', '.join(self.segmenters)}.")
        segmenter = self.segmenters[name]
        try:
            settings = question.settings
            words = Vocabulary.of(asked.words, segmenter.model.vocabularies)
            segmenter.check(words, settings)
        except ValueError as error:
            raise Refused(422, str(error)) from None
        size = input_size(asked.picture.height, asked.picture.width, segmenter.model.image_input)
        return ServerJob(name, asked.picture, size, words, settings)

    async def segment(self, request: Request) -> Response:
        """Answer a request for masks, whatever becomes of it, within the time limit."""
        try:
            self.gate.admit(client_of(request), time.monotonic())
            with self.gate.place():
                try:
                    async with asyncio.timeout(self.limits.seconds):
                        return await self._answer(request)
                except TimeoutError:
                    late = f"The answer was not ready within {self.limits.seconds:g} s."
                    detail = f"{late} Come again when there is less to do, or shrink it."
                    raise Refused(503, detail, self.limits.seconds) from None
        except ClientDisconnect:
            return Response(status_code=LEFT)
        except Refused:
            await _drain(request)
            raise

    async def _answer(self, request: Request) -> Response:
        asked = await read_request(request, self.limits)
        result = await self._result(self.job(asked), request)
        if result is None:
            return Response(status_code=LEFT)
        if asked.question.wanted == ["overlay"] and "image/png" in request.headers.get("accept", ""):
            return Response(await run_in_threadpool(lambda: as_png(result.draw())), media_type="image/png")
        encoded = await run_in_threadpool(
            lambda: json.dumps(describe(result, asked.question, asked.file_name)).encode()
        )
        return Response(encoded, media_type=JSON)

    async def _result(self, job: ServerJob, request: Request) -> Segmentation | None:
        """Wait for a job, but no longer than its client does; None if it left."""
        future = asyncio.wrap_future(self.worker.submit(job))
        left = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait({future, left}, return_when=asyncio.FIRST_COMPLETED)
            return future.result() if future.done() else None
        except ValueError as error:
            raise Refused(422, str(error)) from None
        except (MemoryError, torch.OutOfMemoryError):
            raise Refused(
                503, "There is not enough memory for this picture now. Shrink it, or come again later.", 5
            ) from None
        finally:
            left.cancel()
            future.cancel()


def client_of(request: Request) -> str:
    """Who asks, as limits tell clients apart."""
    return request.client.host if request.client else "unknown"


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _drain(request: Request) -> None:
    """Read what is left of a refused request, unless it is too much, or its client waits for leave to send it."""
    if "expect" in request.headers:
        return
    # the third says that it was read to its end before
    with suppress(Refused, ClientDisconnect, RuntimeError, TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in limited(request, DRAINED, Limits()):
                pass
