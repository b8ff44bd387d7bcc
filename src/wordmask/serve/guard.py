"""What surrounds every request: it is counted, pages of other sites are turned away, and a browser is kept safe."""

import time
from collections.abc import Mapping

from fastapi import Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wordmask.serve.metrics import Metrics

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


class Watched:
    """Counts every request, adds the headers that keep a browser safe, and turns pages of other sites away.

    Args:
        hosts: Names that a request may call this machine by; any if None.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: list[str] | None):
        self.app = app
        self.metrics = metrics
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
            self.metrics.answered(
                path, status, time.perf_counter() - begin, timed=path == "/v1/segment" and status == 200
            )

    def _turned_away(self, scope: Scope) -> Response | None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1").rpartition(":")
        name = host[0] if host[1] and not host[2].endswith("]") else "".join(host)
        if self.hosts is not None and name not in self.hosts:
            return problem(400, f"The host came as {name!r}; expected one of {', '.join(self.hosts)}.")
        if headers.get(b"sec-fetch-site") == b"cross-site" and scope["method"] != "GET":
            return problem(403, "Another site's page asked. Open this server's own page.")
        return None


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that says what is wrong; characters that can't be sent become escapes."""
    return JSONResponse({"detail": detail.encode("utf-8", "backslashreplace").decode()}, status, headers)
