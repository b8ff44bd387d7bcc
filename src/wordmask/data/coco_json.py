"""What a json in one of COCO's formats must hold."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from wordmask.data.files import first_few

COCO_SHAPE = "{'images': [{'id', 'file_name'}, …], 'annotations': […], 'categories': [{'id', 'name'}, …]}"


def entries_of(path: Path, content: dict, key: str, wanted: Mapping[str, type]) -> list[dict]:
    """The list under a key of a json in one of COCO's formats.

    Args:
        wanted: What each entry must have: key → type. Ids must differ.

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
        bad = not isinstance(entry, dict) or [
            name for name, kind in wanted.items() if type(entry.get(name)) is not kind
        ]
        if bad:
            expected = ", ".join(f"{name!r}: {kind.__name__}" for name, kind in wanted.items())
            raise ValueError(f"The file {str(path)!r}: {key}[{number}] is {str(entry)[:80]}; expected {{{expected}}}.")
        if "id" in wanted and entry["id"] in seen:
            raise ValueError(f"The file {str(path)!r} has two {key} with the id {entry['id']}. Give each its own.")
        if "id" in wanted:
            seen.add(entry["id"])
    return entries


def check_known(key: str, ids: Iterable[int], known: Collection[int], path: Path) -> None:
    """Raise `ValueError` if annotations refer to ids that are not listed under `key`."""
    strangers = list(dict.fromkeys(one for one in ids if one not in known))
    if strangers:
        raise ValueError(
            f"The file {str(path)!r} has annotations of {key} it does not list: {first_few(strangers)}. "
            f"Add them to {key!r}."
        )
