"""Files of a job: whole or not at all, and named where something goes wrong, which a full disk alone doesn't do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wordmask.writing import atomic


@contextmanager
def whole(path: Path, unfinished: Path) -> Iterator[Path]:
    """`writing.atomic`, with the file's name in its errors."""
    with naming(path), atomic(path, unfinished) as temporary:
        yield temporary


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a file in the errors of the block that name none.

    Raises:
        OSError: As the block does.
    """
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise OSError(f"{str(path)!r} can't be written: {error}") from error
        if error.filename is None:
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
