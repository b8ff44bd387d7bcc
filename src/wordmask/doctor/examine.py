"""Look at this machine. Quick, and it never fails: torch, which takes seconds to import and may be broken, is
asked in a process of its own, for a limited time.
"""

import json
import os
import platform
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib import metadata
from itertools import chain
from pathlib import Path
from typing import TypeVar

from wordmask import __version__
from wordmask.doctor.findings import (
    Availability,
    CacheContent,
    CachedText,
    CachedWeights,
    Examination,
    Extra,
    Processor,
    TorchChoices,
    Undetermined,
)
from wordmask.pipeline import usable_cores
from wordmask.released import CHECKPOINT_ENDINGS, RELEASED, InPackage, OnDrive, OnHub, converted_file, weights_folder
from wordmask.writing import cache_folder

SHOWN = ("torch", "torchvision", "open-clip-torch", "timm", "numpy", "pillow", "safetensors", "huggingface-hub")
FLAGS = {  # what a fast bfloat16 goes by: on Linux, in Apple's lists
    "bfloat16": ("avx512_bf16", "amx_bf16", "bf16", "hw.optional.arm.FEAT_BF16"),
    "AMX": ("amx_tile",),
    "AVX-512": ("avx512f",),
}
ASK_TORCH = """
import json, torch
from wordmask.hardware import choose_device, choose_precision
cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
device = choose_device("auto")
print(json.dumps({
    "device": str(device), "precision": choose_precision("auto", device), "threads": torch.get_num_threads(),
    "cuda": [torch.cuda.get_device_name(number) for number in range(cards)],
    "cuda_version": torch.version.cuda, "mps": torch.backends.mps.is_available(),
}))
"""
EXTRA = re.compile(r"^\s*([\w.-]+).*extra\s*==\s*['\"]([\w-]+)['\"]")
Finding = TypeVar("Finding")


def examine(wait: float) -> Examination:
    """Look at everything.

    Args:
        wait: Seconds that torch gets to answer.
    """
    begin = time.monotonic()
    child = _safely(_begin_asking)
    cpu, cache, models, extras = _safely(_cpu), _safely(_cache), _safely(_models), _safely(_extras)
    left = wait - (time.monotonic() - begin)
    return Examination(
        wordmask=__version__,
        python=platform.python_version(),
        system=f"{platform.system()} {platform.machine()}",
        cpu=cpu,
        versions={name: _version(name) for name in SHOWN},
        cache=cache,
        models=models,
        extras=extras,
        uses=child if isinstance(child, Undetermined) else _safely(partial(_answer, child, left)),
    )


def _safely(look: Callable[[], Finding]) -> Finding | Undetermined:
    try:
        return look()
    except Exception as error:  # a doctor that falls ill helps nobody: what can't be found out is said
        return Undetermined(f"could not be found out: {type(error).__name__}: {error}")


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _begin_asking() -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", ASK_TORCH],
        env=environment,
        text=True,
        errors="replace",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def _answer(child: subprocess.Popen, wait: float) -> TorchChoices | Undetermined:
    try:
        answer, errors = child.communicate(timeout=max(0.0, wait))
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        late = "torch did not answer in time, as when it is imported for the first time"
        return Undetermined(f"{late}. Run again, or give it --wait 60.")
    if child.returncode:
        last = (errors.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        return Undetermined(f"torch cannot be used: {last}")
    return TorchChoices(**json.loads(answer.strip().splitlines()[-1]))


def _cpu() -> Processor:
    name, words = platform.processor() or platform.machine(), set()
    if platform.system() == "Linux":
        lines = dict(_pairs(Path("/proc/cpuinfo").read_text(errors="replace")))
        name = lines.get("model name", name)
        words = set((lines.get("flags") or lines.get("Features") or "").split())
    elif platform.system() == "Darwin":
        settings = subprocess.run(
            ["sysctl", "machdep.cpu.brand_string", "hw.optional"],
            capture_output=True,
            text=True,
            timeout=1,
            check=False,
        )
        lines = dict(_pairs(settings.stdout))
        name = lines.get("machdep.cpu.brand_string", name)
        words = {key for key, value in lines.items() if value == "1"}
    flags = {flag: bool(words.intersection(signs)) for flag, signs in FLAGS.items()}
    return Processor(name, cores=os.cpu_count(), usable=usable_cores(), memory=_memory(), flags=flags)


def _pairs(text: str) -> list[tuple[str, str]]:
    """Lines of `name: value`, the first of each name last, so that it wins."""
    found = [line.partition(":") for line in text.splitlines() if ":" in line]
    return [(name.strip(), value.strip()) for name, _, value in reversed(found)]


def _memory() -> int | None:
    """Bytes of memory, where the system says."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _cache() -> CacheContent:
    folder = cache_folder()
    files = sorted(path for path in weights_folder().glob("*") if path.is_file())
    weights = [CachedWeights(path.name, path.stat().st_size) for path in files]
    databases = sorted((folder / "text").glob("*.sqlite"))
    text = [CachedText(path.name, path.stat().st_size, _phrases(path)) for path in databases]
    return CacheContent(str(folder), weights, text)


def _phrases(path: Path) -> int | None:
    """How many vectors a text cache holds; None if it can't be read now."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=0.1)) as database:
            return database.execute("SELECT count(*) FROM vectors").fetchone()[0]
    except sqlite3.Error:
        return None


def _models() -> list[Availability]:
    """Every released model: whether it works without network, and how it gets here if not."""
    rows = chain.from_iterable(places.items() for places in RELEASED.values())
    return [_model(name, place) for name, place in rows]


def _model(name: str, place: OnHub | OnDrive | InPackage) -> Availability:
    ready = None if isinstance(place, InPackage) else converted_file(name)
    if isinstance(place, InPackage) or ready:
        return Availability(name, offline=True, where=str(ready) if ready else "in the package", get=None)
    get = f"wordmask segment PICTURE WORD --model {name}"
    if isinstance(place, OnHub):
        files = _hub_folder(place.repository).glob("snapshots/*/**/*")
        fetched = [path.name for path in files if path.suffix in CHECKPOINT_ENDINGS]
        state = f"; fetched, not converted: {', '.join(fetched)}" if fetched else ""
        return Availability(name, offline=False, where=f"huggingface.co/{place.repository}{state}", get=get)
    if _version("gdown") is None:
        get = f"pip install 'wordmask[drive]', then {get}"
    return Availability(name, offline=False, where=f"drive.google.com/file/d/{place.file_id}", get=get)


def _hub_folder(repository: str) -> Path:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub") / f"models--{repository.replace('/', '--')}"


def _extras() -> list[Extra]:
    """The extras of the package: what each lacks, and the command that gets it."""
    needs: dict[str, list[str]] = {}
    for requirement in metadata.requires("wordmask") or []:
        if match := EXTRA.match(requirement):
            needs.setdefault(match[2], []).append(match[1])
    return [_extra(extra, names) for extra, names in needs.items()]


def _extra(name: str, needs: list[str]) -> Extra:
    missing = [package for package in needs if _version(package) is None]
    return Extra(name, missing, get=f"pip install 'wordmask[{name}]'" if missing else None)
