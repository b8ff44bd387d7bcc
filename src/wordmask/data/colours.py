"""Label pictures whose colours are classes: tables that say which."""

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8

from wordmask.data.files import SHOWN, lines_of
from wordmask.regions import look_up
from wordmask.vocabulary import Vocabulary
from wordmask.words import same_phrase

# ours; the same; of CamVid; of CVAT
TABLES = ("colours.txt", "colors.txt", "class_dict.csv", "labelmap.txt")
COLOUR = re.compile(r"(?<!\d)(\d{1,3})\s*[, ;\t]\s*(\d{1,3})\s*[, ;\t]\s*(\d{1,3})(?!\d)")
HEXADECIMAL = re.compile(r"#([0-9a-fA-F]{6})\b")
SURROUNDING = " \t,;:\"'()[]"
# what tables call pixels without a class
NOTHING = frozenset({"unlabelled", "unlabeled", "void", "ignore", "ignored", "no class", "none"})
NO_CLASS = -1


@dataclass(frozen=True)
class ColourTable:
    """Which colour is which class.

    Args:
        path: Where it stands.
        label_of: red · 65536 + green · 256 + blue → the class, or -1.
    """

    path: Path
    label_of: dict[int, int]

    def classes_of(self, rgb: UInt8[np.ndarray, "H W 3"], label: Path) -> Int[np.ndarray, "H W"]:
        """The class of each pixel, -1 where there is none.

        Raises:
            ValueError: There is a colour that the table lacks.
        """
        codes = rgb.astype(np.int64) @ np.array([65536, 256, 1])
        found, counts = np.unique(codes, return_counts=True)
        strangers = [
            (code, count)
            for code, count in zip(found.tolist(), counts.tolist(), strict=True)
            if code not in self.label_of
        ]
        if strangers:
            strangers.sort(key=lambda stranger: -stranger[1])
            listed = "; ".join(f"{written(code)} of {count} pixels" for code, count in strangers[:SHOWN])
            raise ValueError(
                f"The label {str(label)!r} has {len(strangers)} colours that {self.path.name} lacks: {listed}. "
                "Add them, with their class or 'unlabelled'."
            )
        labels = np.array([self.label_of[code] for code in found.tolist()], np.int64)
        return look_up(labels, np.searchsorted(found, codes))


def find_table(root: Path) -> Path | None:
    """The table of colours in a folder, if it has one."""
    return next((root / name for name in TABLES if (root / name).is_file()), None)


def read_table(path: Path, vocabulary: Vocabulary | None) -> tuple[ColourTable, Vocabulary]:
    """Read a table of colours: red, green, blue and a class on each line, in any order and punctuation.

    Args:
        vocabulary: The classes, where another file has them; None: they are those of the table, in its order.

    Raises:
        ValueError: A line has no colour, a colour stands twice, or a class is not among those of the other file.
    """
    rows = _rows(path)
    if vocabulary is None:
        names = list(dict.fromkeys(name for _, name in rows if same_phrase(name) not in NOTHING))
        if not names:
            raise ValueError(f"{str(path)!r} has no class; expected lines such as: 128 64 128 road.")
        vocabulary = Vocabulary.of(names)
    labels = {same_phrase(name): label for label, entry in enumerate(vocabulary) for name in entry.names}
    label_of: dict[int, int] = {}
    for code, name in rows:
        phrase = same_phrase(name)
        if phrase not in labels and phrase not in NOTHING:
            raise ValueError(
                f"{str(path)!r} has the class {name!r}, which names.txt lacks. Add it there, or call it 'unlabelled'."
            )
        if code in label_of:
            raise ValueError(f"{str(path)!r} has the colour {written(code)} twice. Give each class its own.")
        label_of[code] = labels.get(phrase, NO_CLASS)
    return ColourTable(path, label_of), vocabulary


def _rows(path: Path) -> list[tuple[int, str]]:
    rows = []
    for number, line in enumerate(lines_of(path), 1):
        hexadecimal, colour = HEXADECIMAL.search(line), COLOUR.search(line)
        match = hexadecimal or colour
        # comments, and the headings that other tools write
        if match is None and (number == 1 or line.startswith("#")):
            continue
        values = [] if colour is None or hexadecimal else [int(value) for value in colour.groups()]
        if match is None or any(value > 255 for value in values):
            raise ValueError(f"{str(path)!r}, line {number}, is {line!r}; expected such as: 128 64 128 road.")
        code = int(hexadecimal[1], 16) if hexadecimal else values[0] * 65536 + values[1] * 256 + values[2]
        before, after = line[: match.start()].strip(SURROUNDING), line[match.end() :].strip(SURROUNDING)
        name = before or after.split("::")[0].strip(SURROUNDING)
        if not name:
            raise ValueError(f"{str(path)!r}, line {number}, is {line!r}, without a class; expected: 128 64 128 road.")
        rows.append((code, name))
    return rows


def written(code: int) -> str:
    """A colour as people write it."""
    return f"{code >> 16} {code >> 8 & 255} {code & 255}"
