"""Checkpoints: our safetensors with the configuration inside, reference files, and the hub. Nothing is ever unpickled
as code."""

import dataclasses
import hashlib
import json
import re
import tempfile
import typing
import zipfile
from pathlib import Path

import safetensors
import torch
from huggingface_hub import HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wordmask.released import converted_file, forget, remember, weights_folder  # noqa: F401  callers find them here
from wordmask.writing import at_home, atomic

FORMAT = "wordmask-1"
REFERENCE_FILES = (".pth", ".pt", ".bin", ".pkl")
CHECKPOINT_FILES = (".safetensors", *REFERENCE_FILES)
TEXT_TOWER = (
    "clip.transformer.",
    "clip.token_embedding.",
    "clip.positional_embedding",
    "clip.ln_final.",
    "clip.text_projection",
)
SIZES = ("base", "large")
STATE_NAMES = ("model", "state_dict", "model_state_dict")  # where trainers put the weights; detectron2 uses the first
FINGERPRINT = re.compile(r"[0-9a-f]{16}")
PICKLE_START = b"\x80"
HUB_WAIT = 10  # seconds for an answer from the hub
# the second is the HTTP library's own, whichever the hub's version uses
HUB_ERRORS = (OSError, *HfHubHTTPError.__bases__)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """Weights with what is needed to build their model.

    Args:
        family: `err-seg` or `eov-seg`; empty for a reference file.
        configuration: As in the file; empty for a reference file.
        text_tower: Fingerprint of the text tower, for the cache of text embeddings; empty if not known.
        origin: Where it came from, for people.
    """

    state: dict[str, Tensor]
    family: str
    configuration: dict
    text_tower: str
    origin: str


def save(path: Path, state: dict[str, Tensor], *, family: str, configuration: object, origin: str) -> None:
    """Write a checkpoint as safetensors with its configuration in the metadata; it appears whole or not at all.

    Raises:
        OSError: There is no space, or no permission.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    metadata = {
        "format": FORMAT,
        "family": family,
        "configuration": json.dumps(dataclasses.asdict(configuration)),
        "text_tower": text_tower_fingerprint(state),
        "origin": origin,
    }
    save_tensors(path, state, metadata)


def save_tensors(path: Path, state: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """Write safetensors, whole or not at all, readable by whom the system's default lets read.

    Raises:
        OSError: There is no space, or no permission.
    """
    with atomic(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # the library makes its own file, which only its owner may read
        try:
            save_file(state, temporary, metadata)
        except safetensors.SafetensorError as error:
            raise OSError(f"{str(path)!r} could not be written: {error}") from None
        temporary.chmod(mode)


def read(path: Path) -> Checkpoint:
    """Read a checkpoint of ours or a reference's.

    Raises:
        ValueError: The file does not exist, is damaged, or is not a checkpoint.
    """
    path = at_home(path)
    if path.is_dir():
        raise ValueError(
            f"{str(path)!r} is a folder; expected a checkpoint file, one of those that end in "
            f"{', '.join(CHECKPOINT_FILES)}."
        )
    if not path.is_file():
        raise ValueError(f"The checkpoint {str(path)!r} does not exist. Check the spelling.")
    if path.suffix != ".safetensors":
        return Checkpoint(_read_pickled(path), "", {}, "", str(path))
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        state = load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"The checkpoint {str(path)!r} is damaged or not safetensors: {error}. Fetch or convert it again."
        ) from None
    if metadata.get("format") != FORMAT:
        return Checkpoint(state, "", {}, "", str(path))
    try:
        configuration = json.loads(metadata["configuration"])
        # it names a file of the cache
        fingerprint = metadata["text_tower"] if FINGERPRINT.fullmatch(metadata["text_tower"]) else ""
        return Checkpoint(state, metadata["family"], configuration, fingerprint, metadata["origin"])
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"The checkpoint {str(path)!r} has unusable metadata ({error!r}). Fetch or convert it again."
        ) from None


def text_tower_fingerprint(state: dict[str, Tensor]) -> str:
    """Identify a text tower by its weights: 16 hexadecimal digits that change with any of them."""
    return fingerprint({name: tensor for name, tensor in state.items() if name.startswith(TEXT_TOWER)})


def fingerprint(state: dict[str, Tensor]) -> str:
    """Identify weights by their names and values: 16 hexadecimal digits."""
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()[:16]


def configure(kind: type, values: dict) -> object:
    """Build a configuration dataclass from json values: nested ones too, lists back to tuples.

    Raises:
        ValueError: A field is missing or unknown.
    """
    hints = typing.get_type_hints(kind)
    if not isinstance(values, dict) or hints.keys() != values.keys():
        odd = ", ".join(sorted(hints.keys() ^ values.keys())) if isinstance(values, dict) else repr(values)
        raise ValueError(
            f"The checkpoint's configuration does not fit {kind.__name__}: {odd}. "
            "Was it written by another version of wordmask?"
        )
    fields = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(hints[name]):
            fields[name] = configure(hints[name], value)
            continue
        numbers = value if isinstance(value, list) else [value]
        if hints[name] is not str and not all(isinstance(number, int) and number > 0 for number in numbers):
            raise ValueError(f"The checkpoint's configuration has {name} = {value!r}; expected positive whole numbers.")
        fields[name] = tuple(value) if isinstance(value, list) else value
    return kind(**fields)


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
        published = {
            entry.rfilename: entry.lfs
            for entry in HfApi().model_info(repository, files_metadata=True, timeout=HUB_WAIT).siblings
        }
        file = file or pick_file(list(published), size, where)
        path = Path(hf_hub_download(repository, file, etag_timeout=HUB_WAIT))
    except HUB_ERRORS as error:
        if isinstance(error, RepositoryNotFoundError | EntryNotFoundError) and not isinstance(
            error, LocalEntryNotFoundError
        ):
            raise ValueError(
                f"The {where}{f' with {file!r}' if file else ''} does not exist, or is private. Check the spelling."
            ) from None
        path = _in_hub_cache(repository, file, size)
        if path is None:
            raise ValueError(_offline_message(where, file, error)) from None
        return path, file_checksum(path)
    checksum, expected = file_checksum(path), published[file].sha256 if published.get(file) else None
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
        import gdown
    except ImportError:
        raise ValueError(
            f"The weights of {name!r} lie on Google Drive, and fetching them needs gdown: pip install "
            f"'wordmask[drive]'. {by_hand}"
        ) from None
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # gdown leaves parts beside what it writes
        temporary = Path(folder) / path.name
        try:
            done, reason = gdown.download(id=file_id, output=str(temporary), quiet=True), "Drive gave no file"
        except Exception as error:  # gdown's own errors share no base with those of its HTTP library
            done, reason = None, _first_line(error)
        if not done or not temporary.is_file():
            raise ValueError(
                f"The weights of {name!r} could not be fetched from {page}: {reason}. Try again later. {by_hand}"
            )
        if not zipfile.is_zipfile(temporary) and not _starts_as_pickle(temporary):
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
    candidates = [file for file in files if file.endswith(CHECKPOINT_FILES)]
    if size:
        said = {file: _size_in_name(file) for file in candidates}
        candidates = [file for file in candidates if said[file] == size] or [
            file for file in candidates if said[file] is None
        ]
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


def file_checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
        f"{_first_line(error)}. "
        f"Tried the hub and {str(weights_folder())!r}. "
        "Connect once; or download a checkpoint elsewhere, from its page on huggingface.co, and give its path as the "
        "model."
    )


def _first_line(error: Exception) -> str:
    """The kind of an error and the beginning of what it says."""
    text = " ".join(str(error).split()) or "no details"
    return f"{type(error).__name__}: {text if len(text) <= 200 else text[:200] + ' …'}"


def _starts_as_pickle(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(1) == PICKLE_START


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # a damaged file makes zipfile, pickle and torch raise almost anything
        code = re.search(r"nsupported (?:global: GLOBAL|class) (\S+)", str(error))
        if code and (zipfile.is_zipfile(path) or _starts_as_pickle(path)):
            raise ValueError(
                f"The checkpoint {str(path)!r} holds more than tensors: loading it would run {code[1]}, which may do "
                "anything. "
                "Save its state dict alone with torch.save, or as safetensors."
            ) from None
        raise ValueError(
            f"The checkpoint {str(path)!r} is damaged or not a PyTorch file ({type(error).__name__}). Fetch it again."
        ) from None
    for name in STATE_NAMES:
        if isinstance(content, dict) and isinstance(content.get(name), dict):
            content = content[name]
            break
    if (
        not isinstance(content, dict)
        or not content
        or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in content.items())
    ):
        raise ValueError(
            f"The checkpoint {str(path)!r} holds no state dict: expected {{name: tensor}} or "
            f"{{'model': {{name: tensor}}}}."
        )
    return content
