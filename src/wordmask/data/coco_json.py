"""What a json in one of COCO's formats must hold."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from wordmask.data.files import first_few
from wordmask.vocabulary import Vocabulary

COCO_SHAPE = "{'images': [{'id', 'file_name'}, …], 'annotations': […], 'categories': [{'id', 'name'}, …]}"


class Id:
    """Stands for what may be an id: a whole number, or a text."""

    kinds = (int, str)


def with_plain_ids(content: dict) -> dict:
    """The same with ids as whole numbers where they are text or fractions that say one: "7", 7.0."""
    plain = dict(content)
    for key in ("images", "annotations", "categories"):
        entries = content.get(key)
        if isinstance(entries, list):
            plain[key] = [_with_plain_ids(entry) if isinstance(entry, dict) else entry for entry in entries]
    return plain


def _with_plain_ids(entry: dict) -> dict:
    return entry | {name: plain_id(entry[name]) for name in ("id", "image_id", "category_id") if name in entry}


def plain_id(value: object) -> object:
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def in_order_of_id(entry: dict) -> tuple[bool, int, str]:
    """What entries are sorted by: numbers first, then texts."""
    number = entry["id"]
    return (False, number, "") if isinstance(number, int) else (True, 0, number)


def truth(value: object) -> bool:
    """Read what stands for yes or no: a truth value, a number, or a text.

    Raises:
        ValueError: It is something else.
    """
    text = str(value).strip().lower()
    if value is None or text in ("", "0", "0.0", "false", "no"):
        return False
    if text in ("1", "1.0", "true", "yes"):
        return True
    raise ValueError(f"{value!r} came; expected 0 or 1.")


def entries_of(path: Path, content: dict, key: str, wanted: Mapping[str, type]) -> list[dict]:
    """The list under a key of a json in one of COCO's formats.

    Args:
        wanted: What each entry must have: key → type, or `Id`. Ids must differ.

    Raises:
        ValueError: There is no such list, it is empty, or an entry lacks something.
    """
    entries = content.get(key)
    if not isinstance(entries, list) or not entries:
        raise ValueError(
            f"The file {str(path)!r} has no {key}; expected {COCO_SHAPE}. Export it again, with its {key}."
        )
    seen = set()
    for number, entry in enumerate(entries):
        if not fits(entry, wanted):
            raise ValueError(f"The file {str(path)!r}: {misfit(key, number, entry, wanted)}")
        if "id" in wanted and entry["id"] in seen:
            raise ValueError(f"The file {str(path)!r} has two {key} with the id {entry['id']}. Give each its own.")
        if "id" in wanted:
            seen.add(entry["id"])
    return entries


def fits(entry: object, wanted: Mapping[str, type]) -> bool:
    """Whether an entry is an object that has all that is wanted of it."""
    if not isinstance(entry, dict):
        return False
    return all(type(entry.get(name)) in (Id.kinds if kind is Id else (kind,)) for name, kind in wanted.items())


def misfit(key: str, number: int, entry: object, wanted: Mapping[str, type]) -> str:
    """What to say of an entry that lacks something."""
    expected = ", ".join(f"{name!r}: {'int' if kind is Id else kind.__name__}" for name, kind in wanted.items())
    return f"{key}[{number}] is {str(entry)[:80]}; expected {{{expected}}}."


def check_known(key: str, ids: Iterable[object], known: Collection[object], path: Path) -> None:
    """Raise `ValueError` if annotations refer to ids that are not listed under `key`."""
    strangers = list(dict.fromkeys(one for one in ids if one not in known))
    if strangers:
        raise ValueError(
            f"The file {str(path)!r} has annotations of {key} it does not list: {first_few(strangers)}. "
            f"Add them to {key!r}."
        )


def vocabulary_of(categories: list[dict], path: Path) -> Vocabulary:
    """The classes that categories describe, in their order.

    Raises:
        ValueError: There is none, or a name that can't be one.
    """
    if not categories:
        raise ValueError(f"The file {str(path)!r} has no category but one that groups others. Export it again.")
    try:
        words = Vocabulary.of([entry["name"] for entry in categories])
    except ValueError as error:
        raise ValueError(f"The categories of {str(path)!r}: {error}") from None
    if len(words) != len(categories):
        raise ValueError(
            f"A category of {str(path)!r} has a ';' in its name, which separates classes. "
            "Write a comma between synonyms."
        )
    classes = []
    for word, entry in zip(words, categories, strict=True):
        try:
            thing = word.thing if entry.get("isthing") is None else truth(entry["isthing"])
        except ValueError as error:
            raise ValueError(f"The isthing of {entry['name']!r} in {str(path)!r}: {error}") from None
        number = entry["id"] if isinstance(entry["id"], int) else None
        classes.append(replace(word, thing=thing, dataset_id=number))
    return Vocabulary(tuple(classes), title=path.name)
