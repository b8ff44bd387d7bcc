"""Released checkpoints come here from the hub, or from Google Drive, or from the hub's cache."""

import errno
import re
from pathlib import Path

from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from wordmask.released import CHECKPOINT_ENDINGS, weights_folder
from wordmask.unpickling import may_be_pickled
from wordmask.weights import file_checksum
from wordmask.writing import unfinished_folder

SIZES = ("base", "large")
# no network is to blame for these
OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
HUB_WAIT = 10  # seconds for an answer from the hub
# the second is the HTTP library's own, whichever the hub's version uses
HUB_ERRORS: tuple[type[Exception], ...] = (OSError, *HfHubHTTPError.__bases__)


def fetch(repository: str, file: str | None = None, size: str | None = None) -> tuple[Path, str]:
    """Fetch a checkpoint from the hub, or find it in the hub's cache; return it with its SHA-256.

    Args:
        repository: `owner/name`.
        file: Its path there; found by `size` if None.
        size: `base` or `large`, when a repository holds several.

    Raises:
        ValueError: No network and nothing cached, no such repository or file, several candidates, or a wrong checksum.
    """
    where = f"hub repository {repository!r}"
    try:
        published = _published(repository)
        file = file or pick_file(list(published), size, where)
        path = Path(hf_hub_download(repository, file, etag_timeout=HUB_WAIT))
    except HUB_ERRORS as error:
        if isinstance(error, OSError) and error.errno in OF_THE_DISK:
            place = error.filename or HF_HUB_CACHE
            raise OSError(error.errno, error.strerror, str(place)) from None
        if _is_missing(error):
            raise ValueError(
                f"The {where}{f' with {file!r}' if file else ''} does not exist, or is private. Check the spelling."
            ) from None
        path = _in_hub_cache(repository, file, size)
        if path is None:
            raise ValueError(_offline_message(where, file, error)) from None
        return path, file_checksum(path)
    checksum, expected = file_checksum(path), published.get(file)
    if expected and checksum != expected:
        for damaged in {path.resolve(), path}:  # the hub's cache links to a file of its own
            damaged.unlink(missing_ok=True)
        raise ValueError(
            f"{file!r} from {where} arrived damaged: its SHA-256 is not the published {expected}. "
            "Run the command again."
        )
    return path, checksum


def fetch_from_drive(file_id: str, name: str) -> tuple[Path, str]:
    """Fetch a checkpoint from Google Drive; return it with its SHA-256. It lies in the folder of weights until it is
    converted.

    Args:
        file_id: What Drive calls it.
        name: What we call it.

    Raises:
        ValueError: gdown is not installed, no network, or Drive refuses.
    """
    path = weights_folder() / f"{name}.fetched.pth"
    page = f"https://drive.google.com/file/d/{file_id}"
    by_hand = f"Or download {page} in a browser and give the file as the model."
    try:
        import gdown  # pyright: ignore[reportMissingImports]  # an extra
    except ImportError:
        raise ValueError(
            f"The weights of {name!r} lie on Google Drive, and fetching them needs gdown: pip install "
            f"'wordmask[drive]'. {by_hand}"
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with unfinished_folder(path) as folder:  # gdown leaves parts beside what it writes
        temporary = folder / path.name
        try:
            done, reason = gdown.download(id=file_id, output=str(temporary), quiet=True), "Drive gave no file"
        except OSError as error:
            if error.errno in OF_THE_DISK:
                raise  # with the path
            done, reason = None, _first_line(error)
        except Exception as error:  # gdown's own errors share no base with those of its HTTP library
            done, reason = None, _first_line(error)
        if not done or not temporary.is_file():
            raise ValueError(
                f"The weights of {name!r} could not be fetched from {page}: {reason}. Try again later. {by_hand}"
            )
        if not may_be_pickled(temporary):
            raise ValueError(
                f"What {page} gave for {name!r} is no checkpoint: Drive may ask for a confirmation. {by_hand}"
            )
        temporary.replace(path)
    return path, file_checksum(path)


def pick_file(files: list[str], size: str | None, where: str) -> str:
    """Pick a checkpoint by its name: one that says `size` or its first letter, else the only one that says no other
    size.

    Raises:
        ValueError: There is none, or several.
    """
    candidates = [file for file in files if file.endswith(CHECKPOINT_ENDINGS)]
    if size:
        said = {file: _size_in_name(file) for file in candidates}
        of_size = [file for file in candidates if said[file] == size]
        candidates = of_size or [file for file in candidates if said[file] is None]
    for preferred in (".safetensors", ".pth"):
        matching = [file for file in candidates if file.endswith(preferred)]
        if len(matching) == 1:
            return matching[0]
    if len(candidates) == 1:
        return candidates[0]
    wanted = f"one for size {size!r}" if size else "one checkpoint"
    raise ValueError(
        f"Expected {wanted} in the {where}; it holds {', '.join(files) or 'no files'}. "
        "Name the file: wordmask.load('owner/name/file.pth')."
    )


def _size_in_name(file: str) -> str | None:
    for size in SIZES:
        pattern = rf"(?:^|[^a-z0-9])(?:[a-z]*(?:seg|convnext|model))?(?:{size[0]}|{size})(?:[^a-z0-9]|$)"
        if re.search(pattern, file, re.IGNORECASE):
            return size
    return None


def _published(repository: str) -> dict[str, str | None]:
    """The files of a repository, each with its SHA-256 where the hub states it."""
    siblings = HfApi().model_info(repository, files_metadata=True, timeout=HUB_WAIT).siblings or []
    return {entry.rfilename: entry.lfs.sha256 if entry.lfs else None for entry in siblings}


def _is_missing(error: Exception) -> bool:
    """Tell whether the hub answered that there is no such thing; without an answer it may be there."""
    is_missing = isinstance(error, RepositoryNotFoundError | EntryNotFoundError)
    return is_missing and not isinstance(error, LocalEntryNotFoundError)


def _in_hub_cache(repository: str, file: str | None, size: str | None) -> Path | None:
    try:
        folder = Path(snapshot_download(repository, local_files_only=True))
        files = [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]
        path = folder / (file or pick_file(files, size, repository))
    except (*HUB_ERRORS, ValueError):
        return None
    return path if path.is_file() else None


def _offline_message(where: str, file: str | None, error: Exception) -> str:
    return (
        f"The {where} could not be reached{f' for {file!r}' if file else ''}, and nothing is cached: "
        f"{_first_line(error)}. Tried the hub and {str(weights_folder())!r}. "
        "Connect once; or download a checkpoint elsewhere, from its page on huggingface.co, and give its path as the "
        "model."
    )


def _first_line(error: Exception) -> str:
    """The kind of an error and the beginning of what it says."""
    text = " ".join(str(error).split()) or "no details"
    return f"{type(error).__name__}: {text if len(text) <= 200 else text[:200] + ' …'}"
