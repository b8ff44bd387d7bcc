"""A server for tests: on a free port, in a thread of this process."""

import io
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import numpy as np
from PIL import Image

from conftest import colourful
from wordmask.segmenter import Segmenter
from wordmask.serve.limits import Limits
from wordmask.serve.server import create_server
from wordmask.serve.service import Service


@dataclass(frozen=True)
class Running:
    """A server that listens."""

    url: str
    service: Service
    client: httpx.Client

    def segment(self, picture: bytes | None = None, **fields) -> httpx.Response:
        """Ask by a form."""
        fields = {"words": ["sky", "car, automobile", "grass"]} | fields
        files = {"picture": ("garden.png", png() if picture is None else picture)}
        return self.client.post("/v1/segment", data=fields, files=files)


@contextmanager
def running(segmenters: Mapping[str, Segmenter], **limits) -> Iterator[Running]:
    """Serve until the block ends."""
    server = create_server(segmenters, Limits(**{"rate": 0, **limits}), host="127.0.0.1", port=0)
    socket = server.config.bind_socket()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [socket]})
    thread.start()
    url = f"http://127.0.0.1:{socket.getsockname()[1]}"
    try:
        with httpx.Client(base_url=url, timeout=60) as client:
            yield Running(url, server.service, client)
    finally:
        server.should_exit = True
        thread.join()


class Held(Segmenter):
    """A segmenter that waits for `go`, notes how many pictures come together, and fails at pictures of one pixel."""

    def __init__(self, *arguments, **details):
        super().__init__(*arguments, **details)
        self.go, self.began, self.calls, self.asked = threading.Event(), threading.Event(), [], []

    def __call__(self, pictures, words, *settings):
        self.calls.append(len(pictures))
        self.asked.append(words.names)
        self.began.set()
        assert self.go.wait(30)
        if any(picture.shape[:2] == (1, 1) for picture in pictures):
            raise RuntimeError("one pixel")
        return super().__call__(pictures, words, *settings)


def png(height: int = 48, width: int = 64, seed: int = 0) -> bytes:
    """A picture's file."""
    return encoded(colourful(height, width, seed))


def encoded(picture: np.ndarray, kind: str = "PNG", **details) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, kind, **details)
    return file.getvalue()
