"""The routes: a page, an API, and what keeps both honest."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from importlib.resources import files
from typing import Annotated, Any

import torch
from fastapi import FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import wordmask
from wordmask.demo import draw_sample
from wordmask.pixels import input_size
from wordmask.segmentation import Segmentation
from wordmask.segmenter import Segmenter
from wordmask.serve.answer import Answer, Problem, as_png, describe
from wordmask.serve.limits import Gate, Limits, Refused
from wordmask.serve.metrics import CONTENT_TYPE, Metrics
from wordmask.serve.question import FORM, JSON, JsonQuestion, ParsedRequest, Question, limited, read_request
from wordmask.serve.worker import ModelWorker, ServerJob
from wordmask.vocabulary import Vocabulary
from wordmask.writing import JsonObject

PAGE = {  # path → file and content type
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/masks.js": ("masks.js", "text/javascript; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
SAFE = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
ENCODED_SAFE = [(name.lower().encode(), value.encode()) for name, value in SAFE.items()]
LEFT = 499  # counted for a client that did not wait for its answer; never sent
# bytes of a refused request that are still read, so that its client sees the answer and not a broken connection
DRAINED = 64 * 10**6
DRAIN_SECONDS = 10.0
SAMPLES = 10_000


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
            self.gate.admit(_client(request), time.monotonic())
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


def create_app(segmenters: Mapping[str, Segmenter], limits: Limits, *, hosts: list[str] | None = None) -> FastAPI:
    """Build the application; `app.state.service` is what its routes share.

    Args:
        segmenters: By the name clients know; the first is the default.
        hosts: Names that a request may call this machine by, against pages that let theirs point here; any if None.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI):
        yield
        await run_in_threadpool(service.worker.close)

    service = Service(segmenters, limits)
    app = FastAPI(
        title="wordmask",
        version=wordmask.__version__,
        description="Words in, masks out.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.service = service
    _add_api(app, service)
    for path, (file, kind) in PAGE.items():
        app.add_api_route(path, _page(file, kind), include_in_schema=False)
    _add_error_handlers(app)
    app.add_middleware(Watched, service=service, hosts=hosts)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    def refused(_: Request, error: Refused) -> Response:
        return _problem(error.status, error.detail, error.headers)

    @app.exception_handler(HTTPException)
    def of_http(_: Request, error: HTTPException) -> Response:
        return _problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        return _problem(422, "; ".join(one["msg"] for one in error.errors()))

    @app.exception_handler(Exception)
    def failed(_: Request, error: Exception) -> Response:
        return _problem(500, "The server failed at this request; its log says how.")


def _add_api(app: FastAPI, service: Service) -> None:
    body = {
        FORM: {"schema": _form_schema()},
        JSON: {"schema": JsonQuestion.model_json_schema()},
    }
    responses: dict[int | str, dict[str, Any]] = {  # as FastAPI wants them
        200: {
            "model": Answer,
            "description": "What was found.",
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        },
        400: {"model": Problem, "description": "The host is not this one."},
        403: {"model": Problem, "description": "Another site's page asked."},
        413: {"model": Problem, "description": "Too many bytes or pixels."},
        415: {"model": Problem, "description": "Another content type."},
        422: {"model": Problem, "description": "Words, picture or settings that make no sense, or too many words."},
        429: {"model": Problem, "description": "Too many requests from this client; see Retry-After."},
        503: {
            "model": Problem,
            "description": "All places taken, out of time or memory, or about to stop; see Retry-After.",
        },
    }

    @app.post("/v1/segment", responses=responses, openapi_extra={"requestBody": {"required": True, "content": body}})
    async def segment(request: Request) -> Response:
        """Find what words name in a picture. With `return=overlay` and `Accept: image/png`, the answer is the picture
        itself."""
        return await service.segment(request)

    @app.get("/v1/models")
    async def models() -> JsonObject:
        """What is served, and the limits."""
        return {
            "models": [_model(name, segmenter) for name, segmenter in service.segmenters.items()],
            "limits": vars(service.limits),
        }

    @app.get("/v1/samples/{number}", responses={code: responses[code] for code in (422, 429)})
    async def sample(number: Annotated[int, Path(ge=0, lt=SAMPLES)], request: Request) -> JsonObject:
        """A generated scene to try, as a PNG in base64, and words to look for in it."""
        service.gate.admit(_client(request), time.monotonic())
        picture, words = await run_in_threadpool(draw_sample, number)
        return {"words": words, "picture": base64.b64encode(as_png(picture)).decode("ascii")}

    @app.get("/healthz", responses={503: {"description": "About to stop, or the model's thread has ended."}})
    async def healthz() -> Response:
        """Whether requests are taken."""
        if service.gate.stopping or not service.worker.alive:
            return JSONResponse({"status": "stopping" if service.gate.stopping else "dead"}, 503)
        return JSONResponse({"status": "ok"})

    @app.get("/metrics", responses={200: {"content": {"text/plain": {}}}})
    async def metrics() -> Response:
        """Counts for Prometheus."""
        text = service.metrics.text(waiting=len(service.worker), inside=service.gate.inside)
        return Response(text, headers={"Content-Type": CONTENT_TYPE})


class Watched:
    """Counts every request, adds the headers that keep a browser safe, and turns pages of other sites away."""

    def __init__(self, app: ASGIApp, service: Service, hosts: list[str] | None):
        self.app = app
        self.service = service
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin, status = time.perf_counter(), 500

        async def send_safely(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *ENCODED_SAFE]}
            if status != LEFT:
                await send(message)

        try:
            answer = self._turned_away(scope) or self.app
            await answer(scope, receive, send_safely)
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.service.metrics.answered(
                path, status, time.perf_counter() - begin, timed=path == "/v1/segment" and status == 200
            )

    def _turned_away(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").rpartition(":")
        name = host[0] if host[1] and not host[2].endswith("]") else "".join(host)
        if self.hosts is not None and name not in self.hosts:
            return _problem(400, f"The host came as {name!r}; expected one of {', '.join(self.hosts)}.")
        if headers.get(b"sec-fetch-site") == b"cross-site" and scope["method"] != "GET":
            return _problem(403, "Another site's page asked. Open this server's own page.")
        return None


def _page(file: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = files("wordmask.serve").joinpath("page", file).read_bytes()

    async def page() -> Response:
        return Response(content, headers={"Content-Type": kind})

    return page


def _model(name: str, segmenter: Segmenter) -> JsonObject:
    model = segmenter.model
    return {
        "name": name,
        "family": model.family,
        "tasks": list(model.tasks),
        "synonyms": ["first", "mean", "each"] if model.synonyms == "each" else ["first", "mean"],
        "keep": bool(model.keep_steps),
        "device": str(segmenter.device),
        "precision": segmenter.precision,
    }


def _form_schema() -> JsonObject:
    schema = Question.model_json_schema()
    picture = {"type": "string", "format": "binary", "description": "A picture file."}
    return schema | {"properties": {"picture": picture} | schema["properties"], "required": ["picture"]}


def _problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that says what is wrong; characters that can't be sent become escapes."""
    return JSONResponse({"detail": detail.encode("utf-8", "backslashreplace").decode()}, status, headers)


def _client(request: Request) -> str:
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
