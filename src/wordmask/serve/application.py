"""The routes: a page and an API."""

import base64
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Annotated, Any

from fastapi import FastAPI, Path, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

import wordmask
from wordmask.demo import draw_sample
from wordmask.segmenter import Segmenter
from wordmask.serve.answer import Answer, Problem, as_png
from wordmask.serve.guard import Watched, problem
from wordmask.serve.limits import Limits, Refused
from wordmask.serve.metrics import CONTENT_TYPE
from wordmask.serve.question import JsonQuestion, Question
from wordmask.serve.reading import FORM, JSON
from wordmask.serve.service import Service, client_of
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
SAMPLES = 10_000


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
    app.add_middleware(Watched, metrics=service.metrics, hosts=hosts)
    return app


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    def refused(_: Request, error: Refused) -> Response:
        return problem(error.status, error.detail, error.headers)

    @app.exception_handler(HTTPException)
    def of_http(_: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        return problem(422, "; ".join(one["msg"] for one in error.errors()))

    @app.exception_handler(Exception)
    def failed(_: Request, error: Exception) -> Response:
        return problem(500, "The server failed at this request; its log says how.")


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
        service.gate.admit(client_of(request), time.monotonic())
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
