"""What an evaluation has counted so far, on disk: stopped at any moment, it goes on from there and comes to the same
figures."""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from wordmask import fingerprints
from wordmask.evaluation.scoring import Scores
from wordmask.writing import JsonObject, atomic, undisturbed

IDENTITY = "identity.json"  # what the counts beside it are of
NOBODY_CHOSE = {"code", "pictures and labels", "versions", "weights"}  # what may differ unnoticed between two starts


class ScoreStore:
    """A folder with the counts of each process, and which pictures are in them.

    Args:
        folder: For all evaluations; each has its own inside.
        identity: Everything that the figures depend on, in plain values: what differs in any of it is another
            evaluation.
        rank: This process's place among those that share the pictures.
    """

    def __init__(self, folder: Path, identity: Mapping[str, object], rank: int = 0):
        self.identity: JsonObject = json.loads(json.dumps(identity, default=str))  # as it will be read
        self.folder = folder / fingerprints.of_values(self.identity)
        self.rank = rank

    def load(self, blank: Callable[[], Scores]) -> Scores:
        """What all processes of an earlier start had counted; from now on it is this process's own.

        A stop at a bad moment leaves pictures in two files: then the smaller one is not used, and its other pictures
        are counted again.
        """
        contents = [_read(path) for path in sorted(self.folder.glob("part-*.npz"))]
        states = [state for state in contents if state is not None]
        states.sort(key=lambda state: -len(state["pictures"]))
        scores = blank()
        for state in states:
            if not set(state["pictures"].tolist()) & set(scores.pictures):
                try:
                    scores.merge(blank().restore(state))
                except (KeyError, ValueError):  # written by another version
                    continue
        if states:
            self.save(scores)
            for path in self.folder.glob("part-*.npz"):
                if path != self._own:
                    path.unlink(missing_ok=True)
        return scores

    def save(self, scores: Scores) -> None:
        """Keep what this process has counted so far."""
        if not (self.folder / IDENTITY).exists():
            with atomic(self.folder / IDENTITY) as temporary:
                temporary.write_text(json.dumps(self.identity, indent=1, ensure_ascii=False), encoding="utf-8")
        with undisturbed(), atomic(self._own) as temporary:
            # no array has the name of an option of `savez`
            np.savez(temporary, **scores.state())  # pyright: ignore[reportArgumentType]

    def forget(self) -> None:
        """Remove it: the evaluation is done."""
        for path in self.folder.glob("part-*.npz"):
            path.unlink(missing_ok=True)
        (self.folder / IDENTITY).unlink(missing_ok=True)
        if self.folder.is_dir() and not any(self.folder.iterdir()):
            self.folder.rmdir()

    def others(self) -> list[tuple[Path, list[str]]]:
        """Stopped evaluations of the same with other code, data or weights, and what is other; none if this one goes
        on."""
        if any(self.folder.glob("part-*.npz")):
            return []
        found = []
        for path in sorted(self.folder.parent.glob(f"*/{IDENTITY}")):
            try:
                other = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue
            changed = [name for name in other | self.identity if other.get(name) != self.identity.get(name)]
            if changed and NOBODY_CHOSE.issuperset(changed):
                found.append((path.parent, [f"the {name}" for name in changed]))
        return found

    @property
    def _own(self) -> Path:
        return self.folder / f"part-{self.rank}.npz"


def unnamed(folder: Path) -> list[Path]:
    """Where counts lie that don't say what they are of: older versions wrote no more."""
    return sorted({path.parent for path in folder.glob("*/part-*.npz") if not (path.parent / IDENTITY).exists()})


def _read(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a file; None if it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as content:
            return dict(content)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
