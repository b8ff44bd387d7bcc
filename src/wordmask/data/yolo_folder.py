"""One's own pictures as Ultralytics has them: a line of shares for each thing."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from wordmask.data.files import first_few, folder_of, lines_of
from wordmask.data.labelled import Fault
from wordmask.data.outlined import UNUSABLE, Annotation, ListedPicture, OutlinedFolder
from wordmask.data.outlines import Box, Shares
from wordmask.data.own_places import batch_input, parts_of, with_synonyms
from wordmask.data.picture_files import pictures_below
from wordmask.data.reading import AS_IT_SAYS, FolderReading
from wordmask.vocabulary import Vocabulary
from wordmask.writing import expanded

YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
LISTS = ("classes.txt", "obj.names")  # of Label Studio and of CVAT: a class a line
BOX_NUMBERS, LEAST_NUMBERS = 5, 7  # class, centre, width, height; class and three corners
LABELS = "labels"
MISSING = "Pictures that are missing"


class YoloPart(NamedTuple):
    """Pictures, and the folder that has their labels under the same names."""

    pictures: list[Path]
    folder: Path
    labels: Path


class YoloFolder(OutlinedFolder):
    """One's own pictures as Ultralytics has them, segmented.

    root/data.yaml with `names` and where the pictures of train and val are; a picture's label is found by `labels` in
    the place of `images`, and lacks where there is nothing. Its lines: a class, then x and y of each corner as shares
    of width and height; or a box, which is no outline. Also with classes.txt instead of the yaml, and what
    `wordmask batch` writes.

    Raises:
        ValueError: The yaml is of another kind, or there is no picture, or no label.
    """

    def __init__(self, root: str | Path, reading: FolderReading = AS_IT_SAYS):
        root = folder_of(root)
        file = find_yaml(root)
        content = {} if file is None else _read_yaml(file)
        vocabulary = with_synonyms(_vocabulary_of(root, file, content), root)
        learnt, measured = _parts(root, file, content, reading)
        parts = [learnt] if measured is None else [learnt, measured]
        pictures, without = [], 0
        for part in parts:
            for path in part.pictures:
                label = part.labels / path.relative_to(part.folder).with_suffix(".txt")
                without += not label.is_file()
                name = path.relative_to(part.folder).as_posix()
                pictures.append(_listed(name, path, label, len(vocabulary)))
        if without == len(pictures):
            raise ValueError(
                f"None of the {without} pictures in {str(learnt.folder)!r} has a label; expected them in "
                f"{str(learnt.labels)!r}, *.txt under the same names."
            )
        super().__init__(root, vocabulary=vocabulary, pictures=pictures, reading=reading, missing=MISSING)
        if without:
            self.notes.append(f"{without} of {len(pictures)} pictures have no label: nothing is to be seen on them")
        first = len(learnt.pictures)
        self.by_itself = None if measured is None else list(range(first, len(pictures)))


def find_yaml(root: Path) -> Path | None:
    """The yaml that describes a data set as Ultralytics does, if there is one."""
    return next((root / name for name in YAML if (root / name).is_file()), None)


def find_list(root: Path) -> Path | None:
    return next((root / name for name in LISTS if (root / name).is_file()), None)


def has_lines(root: Path) -> bool:
    """Whether there are labels in text, as those of Ultralytics."""
    folder = root / LABELS
    return folder.is_dir() and any(path.suffix == ".txt" for path in folder.rglob("*.txt"))


def _read_yaml(path: Path) -> dict:
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"The file {str(path)!r} cannot be read: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"The file {str(path)!r} is no description of a data set; expected names, train and val.")
    if "kpt_shape" in content:
        raise ValueError(f"The file {str(path)!r} is of key points; expected outlines. Export it for segmentation.")
    return content


def _vocabulary_of(root: Path, file: Path | None, content: dict) -> Vocabulary:
    """The classes by their numbers."""
    names = content.get("names")
    where = str(file)
    if file is None:
        listed = find_list(root)
        if listed is None:
            raise ValueError(f"{str(root)!r} has no data.yaml; expected one with names, train and val.")
        names, where = lines_of(listed), str(listed)
    if isinstance(names, dict):
        numbers = [int(number) if str(number).isdecimal() else -1 for number in names]
        if sorted(numbers) != list(range(len(names))):
            raise ValueError(
                f"{where!r} has names for {first_few(list(names))}; expected 0 to {len(names) - 1}, each once."
            )
        names = [name for _, name in sorted(zip(numbers, names.values(), strict=True))]
    if not isinstance(names, list) or not names:
        raise ValueError(f"{where!r} has no names; expected a list of them: names: [car, road].")
    odd = [name for name in names if isinstance(name, bool) or not isinstance(name, str | int | float)]
    if odd:
        raise ValueError(f"{where!r} has the name {odd[0]!r}, which is no text to yaml. Write it in quotes.")
    if content.get("nc", len(names)) != len(names):
        raise ValueError(f"{where!r} says nc: {content['nc']}, and has {len(names)} names. Correct one of them.")
    vocabulary = Vocabulary.of([str(name).strip() for name in names])
    if len(vocabulary) != len(names):
        raise ValueError(f"{where!r} has a name with a ';', which separates classes. Write a comma between synonyms.")
    return vocabulary


def _parts(root: Path, file: Path | None, content: dict, reading: FolderReading) -> tuple[YoloPart, YoloPart | None]:
    """What is for learning, and what is for measuring."""
    base = root / str(content.get("path") or ".")
    base = base if base.is_dir() else root
    places = {part: list(_places(base, root, content.get(part))) for part in ("train", "val")}
    inside = parts_of(root / "images")
    if reading.images is None and places["train"] and places["val"] and places["train"] != places["val"]:
        return _part(places["train"], root), _part(places["val"], root)
    if reading.images is None and not places["train"] and inside is not None:
        return _part([inside[0]], root), _part([inside[1]], root)
    given = [expanded(reading.images)] if reading.images is not None else places["train"] or _elsewhere(root)
    if not given:
        said = f"{file.name} says {content.get('train')!r}" if file else "there is no folder images"
        raise ValueError(f"The pictures of {str(root)!r} are not here: {said}. Say where they are: images=FOLDER.")
    part = _part(given, root)
    if given[0].is_relative_to(root):
        return part, None
    # those that were labelled elsewhere and fail, or were taken out, have no label
    labelled = [
        path for path in part.pictures if (part.labels / path.relative_to(part.folder).with_suffix(".txt")).is_file()
    ]
    return part._replace(pictures=labelled or part.pictures), None


def _elsewhere(root: Path) -> list[Path]:
    """Where pictures are that no yaml tells of: beside the labels, or where `wordmask batch` had them from."""
    given = (batch_input(root), batch_input(root.parent))
    return [path for path in (root / "images", *given) if path is not None and path.is_dir()][:1]


def _places(base: Path, root: Path, said: object) -> Iterator[Path]:
    """The folders, or lists of pictures, that a yaml names; paths of another machine are shortened till they fit."""
    for place in said if isinstance(said, list) else [said]:
        if not isinstance(place, str) or not place.strip():
            continue
        parts = [part for part in Path(place.replace("\\", "/")).parts if part not in ("..", "/")]
        candidates = [base / place, *(root.joinpath(*parts[start:]) for start in range(len(parts)))]
        found = next((path for path in candidates if path.exists() and path.resolve() != root.resolve()), None)
        if found is not None:
            yield found


def _part(places: list[Path], root: Path) -> YoloPart:
    pictures: list[Path] = []
    for place in places:
        pictures += _listed_in(place) if place.is_file() else pictures_below(place)
    pictures = list(dict.fromkeys(pictures))
    if not pictures:
        raise ValueError(f"There is no picture in {first_few([str(place) for place in places])}; expected *.jpg there.")
    folder = places[0] if len(places) == 1 and places[0].is_dir() else root
    if not all(path.is_relative_to(folder) for path in pictures):
        raise ValueError(f"The pictures of {str(root)!r} lie outside it, in several places. Put them into one folder.")
    return YoloPart(pictures, folder, _labels_of(folder, root))


def _labels_of(folder: Path, root: Path) -> Path:
    """The folder of labels that belongs to one of pictures: `labels` in the place of the last `images`."""
    if folder.is_relative_to(root):
        parts = list(folder.relative_to(root).parts)
        if "images" in parts:
            last = len(parts) - 1 - parts[::-1].index("images")
            return root.joinpath(*parts[:last], LABELS, *parts[last + 1 :])
        if (folder.parent / LABELS).is_dir() and folder != root:
            return folder.parent / LABELS
        return folder / LABELS if (folder / LABELS).is_dir() else folder
    return root / LABELS


def _listed_in(place: Path) -> list[Path]:
    """The pictures that a list names, a line each, relative to it."""
    return [place.parent / line for line in lines_of(place)]


def _listed(name: str, path: Path, label: Path, classes: int) -> ListedPicture:
    annotations, faults = [], []
    if label.is_file():
        for number, line in enumerate(label.read_text(encoding="utf-8", errors="replace").split("\n"), 1):
            if line.strip():
                one = _annotation(line.split(), number, label, classes)
                (faults if isinstance(one, Fault) else annotations).append(one)
    return ListedPicture(name, path, label, annotations, faults=faults)


def _annotation(words: list[str], line: int, path: Path, classes: int) -> Annotation | Fault:
    where = f"{str(path)!r}, line {line}:"
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        numbers = [math.nan]
    if not all(map(math.isfinite, numbers)):
        return Fault(UNUSABLE, f"{where} {' '.join(words)[:60]!r} came; expected a class, then shares of the sides.")
    label, shares = numbers[0], numbers[1:]
    if not label.is_integer() or not 0 <= label < classes:
        return Fault(UNUSABLE, f"{where} the class {words[0]} came; expected 0 to {classes - 1}, as there are names.")
    if len(numbers) == BOX_NUMBERS:
        x, y, width, height = shares
        edges = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return Annotation(f"of line {line}", int(label), Box(edges, in_shares=True))
    if len(numbers) < LEAST_NUMBERS or len(numbers) % 2 == 0:
        return Fault(UNUSABLE, f"{where} {len(numbers)} numbers came; expected a class, then x and y of each corner.")
    return Annotation(f"of line {line}", int(label), Shares(tuple(shares)))
