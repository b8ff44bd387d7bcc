"""What the doctor can find; `to_dict` says it to programs, `report_lines` to people."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TypeVar

from wordmask.writing import JsonObject

Section = TypeVar("Section")
TITLE_WIDTH = 10  # characters


@dataclass(frozen=True)
class Undetermined:
    """In the place of a section: what kept it from being found out."""

    problem: str


@dataclass(frozen=True)
class Processor:
    """The machine's own.

    Args:
        cores: How many the machine has; None if the system doesn't say.
        usable: Those that this process may use.
        memory: Bytes; None if the system doesn't say.
        flags: Whether it has what a fast bfloat16 goes by.
    """

    name: str
    cores: int | None
    usable: int
    memory: int | None
    flags: dict[str, bool]


@dataclass(frozen=True)
class TorchChoices:
    """What torch would run on: the names of CUDA devices, and the version of CUDA that it is built for, if any."""

    device: str
    precision: str
    threads: int
    cuda: list[str]
    cuda_version: str | None
    mps: bool


@dataclass(frozen=True)
class CachedWeights:
    """A converted checkpoint."""

    file: str
    bytes: int


@dataclass(frozen=True)
class CachedText:
    """Phrases that were encoded before; None if the file can't be read now."""

    file: str
    bytes: int
    phrases: int | None


@dataclass(frozen=True)
class CacheContent:
    """What lies in the cache folder."""

    folder: str
    weights: list[CachedWeights]
    text: list[CachedText]


@dataclass(frozen=True)
class Availability:
    """Whether a released model works without network, where it is, and the command that gets it if not."""

    name: str
    offline: bool
    where: str
    get: str | None


@dataclass(frozen=True)
class Extra:
    """An extra of the package: what is missing, and the command that gets it."""

    name: str
    missing: list[str]
    get: str | None


@dataclass(frozen=True)
class Examination:
    """Everything; packages that are missing have no version."""

    wordmask: str
    python: str
    system: str
    cpu: Processor | Undetermined
    versions: dict[str, str | None]
    cache: CacheContent | Undetermined
    models: list[Availability] | Undetermined
    extras: list[Extra] | Undetermined
    uses: TorchChoices | Undetermined

    def to_dict(self) -> JsonObject:
        """The same in plain values, for json."""
        return asdict(self)


def report_lines(found: Examination) -> list[str]:
    """Write what was found for people."""
    sections = {
        "hardware": _texts(found.cpu, _processor_lines),
        "uses": _texts(found.uses, _torch_lines),
        "versions": [", ".join(f"{name} {version or 'MISSING'}" for name, version in found.versions.items())],
        "cache": _texts(found.cache, _cache_lines),
        "models": _texts(found.models, _model_lines),
        "extras": _texts(found.extras, _extra_lines),
    }
    lines = [f"wordmask {found.wordmask} · Python {found.python} · {found.system}"]
    for title, texts in sections.items():
        lines += [f"{title if number == 0 else '':{TITLE_WIDTH}}{text}" for number, text in enumerate(texts)]
    return lines


def _texts(section: Section | Undetermined, write: Callable[[Section], list[str]]) -> list[str]:
    return [section.problem] if isinstance(section, Undetermined) else write(section)


def _processor_lines(cpu: Processor) -> list[str]:
    memory = f", {cpu.memory / 2**30:.0f} GiB" if cpu.memory else ""
    cores = f"{cpu.cores} cores" + (f", {cpu.usable} of them for us" if cpu.usable != cpu.cores else "")
    flags = ", ".join(f"{flag} {'yes' if has else 'no'}" for flag, has in cpu.flags.items())
    return [f"{cpu.name}: {cores}{memory}; {flags}"]


def _torch_lines(uses: TorchChoices) -> list[str]:
    cuda = f"CUDA {uses.cuda_version}: {', '.join(uses.cuda)}"
    if not uses.cuda:
        built = f"CUDA {uses.cuda_version}" if uses.cuda_version else "none"
        cuda = f"no CUDA device (torch is built for {built})"
    mps = "MPS" if uses.mps else "no MPS"
    return [f"{uses.device} in {uses.precision}, {uses.threads} threads; {cuda}; {mps}"]


def _cache_lines(cache: CacheContent) -> list[str]:
    phrases = sum(file.phrases or 0 for file in cache.text)
    weights, text = _total([file.bytes for file in cache.weights]), _total([file.bytes for file in cache.text])
    return [cache.folder, f"weights: {weights}; text: {text}, {phrases} phrases"]


def _total(sizes: Sequence[int]) -> str:
    return f"{sum(sizes) / 1e6:.1f} MB in {len(sizes)} file{'' if len(sizes) == 1 else 's'}"


def _model_lines(models: list[Availability]) -> list[str]:
    lines = []
    for model in models:
        state = f"ready: {model.where}" if model.offline else f"not here ({model.where}): {model.get}"
        lines.append(f"{model.name:15} {state}")
    return lines


def _extra_lines(extras: list[Extra]) -> list[str]:
    lines = []
    for extra in extras:
        state = f"lacks {', '.join(extra.missing)}: {extra.get}" if extra.missing else "ready"
        lines.append(f"{extra.name:10} {state}")
    return lines
