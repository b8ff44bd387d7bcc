"""Where files go, and how: whole or not at all."""

import hashlib
import os
import platform
import re
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from types import FrameType

import platformdirs

JsonObject = dict[str, object]  # plain values by name, as they are written as json

UNFINISHED = ".wordmask-"  # begins the name of what is not finished
WHO = re.compile(rf"{re.escape(UNFINISHED)}([0-9a-f]{{8}})-([0-9]{{1,10}})-[0-9a-f]{{8}}")  # its home and process
OLD = 24 * 3600  # seconds since something was last written to; nothing of ours pauses so long

Handler = Callable[[int, FrameType | None], object] | int | None  # of a signal


@contextmanager
def atomic(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Make a temporary path in `folder`, or beside `path`; rename it to `path` when the block ends well, remove it when
    it doesn't.

    What a killed process leaves there can be told from results if `folder` is one of its own, on the same disk;
    wherever it is, the next process that writes there removes it.

    Raises:
        OSError: There is no space, or no permission; it says for which file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _unfinished(folder or path.parent, path.suffix)
    try:
        with named(path, temporary):
            yield temporary
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def unfinished_folder(beside: Path) -> Iterator[Path]:
    """Make a folder beside a path, for what writes several files or temporary ones of its own; it is removed at the
    end, with what is still in it, and after a kill as `atomic` says."""
    folder = _unfinished(beside.parent, "")
    folder.mkdir(parents=True)
    try:
        with named(beside, folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def named(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Have an error of the system say which file was being written: a full disk's names none.

    Args:
        temporary: What is written in the place of `path`, and named by some errors.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, temporary, str(temporary)):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from None
        if type(error) is OSError and error.errno is None and str(path) not in str(error):
            raise OSError(f"{str(path)!r} could not be written: {error}") from None
        raise


@cache
def remove_left_over(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder; once in a process, as it is looked through for that.

    A name says who writes it: of a process that lives nothing is removed. Of other machines and containers that can't
    be told, so that theirs has to be a day old.
    """
    with suppress(OSError):
        for path in folder.glob(f"{UNFINISHED}*"):
            if _is_left_over(path):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _unfinished(folder: Path, ending: str) -> Path:
    """A new name for what is unfinished, which says who writes it."""
    remove_left_over(folder.resolve())
    return folder / f"{UNFINISHED}{_home()}-{os.getpid()}-{secrets.token_hex(4)}{ending}"


def _is_left_over(path: Path) -> bool:
    who = WHO.match(path.name)
    if who is None:
        return False
    if who[1] == _home():
        return not _is_alive(int(who[2]))
    return time.time() - path.stat().st_mtime > OLD


@cache
def _home() -> str:
    """Where the number of a process means that process: this machine since its start, and on Linux this container."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        text = platform.node()
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # where the number 0 is a signal like others
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's
        return True
    return True


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
