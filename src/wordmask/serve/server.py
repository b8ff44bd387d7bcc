"""Start, and stop gracefully: what is under way is finished, what is new gets 503."""

import ipaddress
import signal
from collections.abc import Callable, Mapping
from pathlib import Path

from wordmask.serve.limits import Limits
from wordmask.writing import expanded

try:
    import python_multipart  # noqa: F401  what FastAPI reads forms with
    import uvicorn
    from fastapi import FastAPI
except ImportError as error:
    raise ValueError(f"Serving needs {error.name}, which is not installed: pip install 'wordmask[serve]'.") from None

from wordmask.hardware import Precision
from wordmask.segmenter import Segmenter, load
from wordmask.serve.application import create_app
from wordmask.serve.service import Service

LOOPBACK = ["localhost", "127.0.0.1", "[::1]"]


class Server(uvicorn.Server):
    """On the first signal it refuses what is new and goes on until nothing is under way; on the second it goes at
    once."""

    def __init__(self, configuration: uvicorn.Config, service: Service):
        super().__init__(configuration)
        self.service = service

    def handle_exit(self, sig: int, frame: object) -> None:
        gate = self.service.gate
        if gate.stopping:
            self.should_exit = self.force_exit = True
        gate.stopping = True

    async def on_tick(self, counter: int) -> bool:
        gate = self.service.gate
        self.should_exit = self.should_exit or (gate.stopping and gate.inside == 0)
        return await super().on_tick(counter)


def load_all(names: list[str], *, device: str, precision: Precision, batch: int) -> dict[str, Segmenter]:
    """Load models; each goes by its name, or its file's.

    Raises:
        ValueError: A model can't be loaded, or two have one name.
    """
    segmenters: dict[str, Segmenter] = {}
    for name in names:
        public = Path(name).name if expanded(name).is_file() else name
        if public in segmenters:
            raise ValueError(f"Two models go by the name {public!r}. Leave one out, or rename a file.")
        segmenters[public] = load(name, device=device, precision=precision, batch=batch)
        segmenters[public].name = public
    return segmenters


def create_server(
    segmenters: Mapping[str, Segmenter], limits: Limits, *, host: str, port: int, proxy: str | None = None
) -> Server:
    """Build a server that is ready to run.

    Args:
        port: 0 takes any that is free.
        proxy: Address of a proxy whose X-Forwarded-For is believed.
    """
    own = list(dict.fromkeys([*LOOPBACK, host])) if is_loopback(host) and proxy is None else None
    app: FastAPI = create_app(segmenters, limits, hosts=own)
    configuration = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=proxy is not None,
        forwarded_allow_ips=proxy or "",
        timeout_graceful_shutdown=round(limits.seconds) + 1,
        lifespan="on",
        ws="none",
    )
    return Server(configuration, app.state.service)


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def run(server: Server, announce: Callable[[str], None]) -> None:
    """Serve until told to stop.

    Raises:
        ValueError: The address can't be had.
    """
    config = server.config
    try:
        socket = config.bind_socket()
    except SystemExit:
        raise ValueError(
            f"{config.host}:{config.port} can't be had: it is in use, or not this machine's. Choose another --port."
        ) from None
    host = f"[{config.host}]" if ":" in config.host else config.host
    announce(f"http://{host}:{socket.getsockname()[1]}")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        server.run(sockets=[socket])
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
