"""Where files go, and how: whole or not at all."""

import os
import secrets
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

import platformdirs

JsonObject = dict[str, object]  # plain values by name, as they are written as json

Handler = Callable[[int, FrameType | None], object] | int | None  # of a signal


@contextmanager
def atomic(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Make a temporary path in `folder`, or beside `path`; rename it to `path` when the block ends well, remove it when
    it doesn't.

    What a killed process leaves there can be told from results if `folder` is one of its own, on the same disk.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = (folder or path.parent) / f".{secrets.token_hex(4)}{path.suffix}"
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait until the block has ended: what belongs together is then written together."""
    received: list[int] = []
    before: dict[int, Handler] = {}
    try:
        with suppress(ValueError):  # not in the main thread: no signal disturbs it
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, lambda number, _: received.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if received:
            signal.raise_signal(received[0])


def expanded(path: str | Path) -> Path:
    """Expand a leading `~`; one that names no user stays as it is."""
    return Path(os.path.expanduser(path))


def cache_folder() -> Path:
    """The folder for converted weights and text embeddings; `WORDMASK_CACHE` moves it."""
    return expanded(os.environ.get("WORDMASK_CACHE") or platformdirs.user_cache_path("wordmask"))


def check_writable(folder: Path) -> None:
    """Create `folder` if need be and write one byte there, so that a long job fails before it starts.

    Raises:
        ValueError: The folder cannot be created or written to.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"0")
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"The output folder {str(folder)!r} cannot be written to: {reason}. Choose another.") from None
