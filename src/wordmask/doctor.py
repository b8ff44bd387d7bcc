"""`wordmask doctor`: what this machine has, what will be used, what is cached, what is missing and how to get it.

Quick, and it never fails: torch, which takes seconds to import and may be broken, is asked in a process of its own, for
a limited time.
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
from importlib import metadata
from pathlib import Path

from wordmask import __version__
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


def examine(wait: float) -> dict[str, object]:
    """Look at everything.

    Args:
        wait: Seconds that torch gets to answer.
    """
    begin = time.monotonic()
    child = _safely(_begin_asking)
    found = {
        "wordmask": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _safely(_cpu),
        "versions": {name: _version(name) for name in SHOWN},
        "cache": _safely(_cache),
        "models": _safely(_models),
        "extras": _safely(_extras),
    }
    found["uses"] = (
        child if isinstance(child, dict) else _safely(lambda: _answer(child, wait - (time.monotonic() - begin)))
    )
    return found


def report_lines(found: dict[str, object]) -> list[str]:
    """Write what was found for people."""
    sections = {
        "hardware": _cpu_lines,
        "uses": _uses_lines,
        "versions": lambda versions: [
            ", ".join(f"{name} {version or 'MISSING'}" for name, version in versions.items())
        ],
        "cache": _cache_lines,
        "models": _model_lines,
        "extras": _extra_lines,
    }
    lines = [f"wordmask {found['wordmask']} · Python {found['python']} · {found['system']}"]
    for title, write in sections.items():
        section = found["cpu" if title == "hardware" else title]
        texts = [section["problem"]] if isinstance(section, dict) and "problem" in section else write(section)
        lines += [f"{title if number == 0 else '':10}{text}" for number, text in enumerate(texts)]
    return lines


def _safely(look: Callable[[], object]) -> object:
    try:
        return look()
    except Exception as error:  # a doctor that falls ill helps nobody: what can't be found out is said
        return {"problem": f"could not be found out: {type(error).__name__}: {error}"}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _begin_asking() -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", ASK_TORCH], env=environment, text=True, errors="replace", **pipes)


def _answer(child: subprocess.Popen, wait: float) -> dict[str, object]:
    try:
        answer, errors = child.communicate(timeout=max(0.0, wait))
    except subprocess.TimeoutExpired:
        child.kill()
        child.communicate()
        late = "torch did not answer in time, as when it is imported for the first time"
        return {"problem": f"{late}. Run again, or give it --wait 60."}
    if child.returncode:
        last = (errors.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        return {"problem": f"torch cannot be used: {last}"}
    return json.loads(answer.strip().splitlines()[-1])


def _cpu() -> dict[str, object]:
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
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags = {flag: bool(words.intersection(signs)) for flag, signs in FLAGS.items()}
    return {"name": name, "cores": os.cpu_count(), "usable": usable, "memory": _memory(), "flags": flags}


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


def _cache() -> dict[str, object]:
    folder = cache_folder()
    weights = [
        {"file": path.name, "bytes": path.stat().st_size}
        for path in sorted(weights_folder().glob("*"))
        if path.is_file()
    ]
    text = [
        {"file": path.name, "bytes": path.stat().st_size, "phrases": _phrases(path)}
        for path in sorted((folder / "text").glob("*.sqlite"))
    ]
    return {"folder": str(folder), "weights": weights, "text": text}


def _phrases(path: Path) -> int | None:
    """How many vectors a text cache holds; None if it can't be read now."""
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=0.1)) as database:
            return database.execute("SELECT count(*) FROM vectors").fetchone()[0]
    except sqlite3.Error:
        return None


def _models() -> list[dict[str, object]]:
    """Every released model: whether it works without network, and how it gets here if not."""
    return [_model(name, place) for places in RELEASED.values() for name, place in places.items()]


def _model(name: str, place: OnHub | OnDrive | InPackage) -> dict[str, object]:
    ready = None if isinstance(place, InPackage) else converted_file(name)
    if isinstance(place, InPackage) or ready:
        return {"name": name, "offline": True, "where": str(ready) if ready else "in the package", "get": None}
    get = f"wordmask segment PICTURE WORD --model {name}"
    if isinstance(place, OnHub):
        fetched = [
            path.name
            for path in _hub_folder(place.repository).glob("snapshots/*/**/*")
            if path.suffix in CHECKPOINT_ENDINGS
        ]
        where = f"huggingface.co/{place.repository}" + (
            f"; fetched, not converted: {', '.join(fetched)}" if fetched else ""
        )
        return {"name": name, "offline": False, "where": where, "get": get}
    if _version("gdown") is None:
        get = f"pip install 'wordmask[drive]', then {get}"
    return {"name": name, "offline": False, "where": f"drive.google.com/file/d/{place.file_id}", "get": get}


def _hub_folder(repository: str) -> Path:
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub") / f"models--{repository.replace('/', '--')}"


def _extras() -> list[dict[str, object]]:
    """The extras of the package: what each lacks, and the command that gets it."""
    needs: dict[str, list[str]] = {}
    for requirement in metadata.requires("wordmask") or []:
        if match := EXTRA.match(requirement):
            needs.setdefault(match[2], []).append(match[1])
    lacking = {extra: [name for name in names if _version(name) is None] for extra, names in needs.items()}
    return [
        {"name": extra, "missing": names, "get": f"pip install 'wordmask[{extra}]'" if names else None}
        for extra, names in lacking.items()
    ]


def _cpu_lines(cpu: dict) -> list[str]:
    memory = f", {cpu['memory'] / 2**30:.0f} GiB" if cpu["memory"] else ""
    cores = f"{cpu['cores']} cores" + (f", {cpu['usable']} of them for us" if cpu["usable"] != cpu["cores"] else "")
    return [
        f"{cpu['name']}: {cores}{memory}; "
        + ", ".join(f"{flag} {'yes' if has else 'no'}" for flag, has in cpu["flags"].items())
    ]


def _uses_lines(uses: dict) -> list[str]:
    cuda = (
        f"CUDA {uses['cuda_version']}: {', '.join(uses['cuda'])}"
        if uses["cuda"]
        else f"no CUDA device (torch is built for {_built(uses)})"
    )
    return [
        f"{uses['device']} in {uses['precision']}, {uses['threads']} threads; {cuda}; "
        f"{'MPS' if uses['mps'] else 'no MPS'}"
    ]


def _built(uses: dict) -> str:
    return f"CUDA {uses['cuda_version']}" if uses["cuda_version"] else "none"


def _cache_lines(cache: dict) -> list[str]:
    def total(files: list[dict]) -> str:
        return (
            f"{sum(file['bytes'] for file in files) / 1e6:.1f} MB in {len(files)} file{'' if len(files) == 1 else 's'}"
        )

    phrases = sum(file["phrases"] or 0 for file in cache["text"])
    return [cache["folder"], f"weights: {total(cache['weights'])}; text: {total(cache['text'])}, {phrases} phrases"]


def _model_lines(models: list[dict]) -> list[str]:
    return [
        f"{model['name']:15} ready: {model['where']}"
        if model["offline"]
        else f"{model['name']:15} not here ({model['where']}): {model['get']}"
        for model in models
    ]


def _extra_lines(extras: list[dict]) -> list[str]:
    return [
        f"{extra['name']:10} ready"
        if not extra["missing"]
        else f"{extra['name']:10} lacks {', '.join(extra['missing'])}: {extra['get']}"
        for extra in extras
    ]
