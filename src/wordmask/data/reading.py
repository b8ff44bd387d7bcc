"""How one's own folder is to be read, where it does not say so itself."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from wordmask.writing import expanded

BACKGROUND = "background"  # for `unlabelled`; and the name of the class that it becomes
NUMBERS = re.compile(r"\d+(\s*,\s*\d+)*")
FILLED, REFUSED = "filled", "refused"


@dataclass(frozen=True, kw_only=True)
class FolderReading:
    """What differs from how a folder of one's own is read by itself.

    Args:
        format: Which of `layouts.LAYOUTS` it is, where it looks like several.
        annotations: The json, relative to the folder, where there are several.
        images: Where the pictures are, if not in the folder.
        unlabelled: A number: pixels of label pictures with this value have no class. "background": what has no label is
            a class of its own, called background, so that what a model finds there is wrong.
        values: "0,255": what the values of label pictures are, in the order of the names, if not 0, 1, 2 …
        reduce_zero_label: In label pictures 0 is no class, and 1 is the first name, as ADE20K has it.
        boxes: "filled": where a thing has a box alone, it is the whole box; "refused": that is an error.
        partial: Leave out, and name, what can't be used.
    """

    format: str | None = None
    annotations: Path | None = None
    images: Path | None = None
    unlabelled: str | None = None
    values: str | None = None
    reduce_zero_label: bool = False
    boxes: str = REFUSED
    partial: bool = False

    def __post_init__(self):
        if self.unlabelled is not None and not (self.unlabelled == BACKGROUND or self.unlabelled.isdecimal()):
            raise ValueError(
                f"unlabelled came as {self.unlabelled!r}; expected a value of the label pictures, such as 11, or "
                f"{BACKGROUND}: what has no label counts as a class of this name."
            )
        if self.values is not None and not NUMBERS.fullmatch(self.values.strip()):
            raise ValueError(
                f"values came as {self.values!r}; expected the values of the label pictures in the order of the names, "
                "such as 0,255."
            )
        if self.values is not None and self.reduce_zero_label:
            raise ValueError("values and reduce_zero_label were both given; either says what the others are. Take one.")
        if self.boxes not in (FILLED, REFUSED):
            raise ValueError(f"boxes came as {self.boxes!r}; expected {FILLED} or {REFUSED}.")
        if self.images is not None and not expanded(self.images).is_dir():
            raise ValueError(f"images came as {str(self.images)!r}, which is no folder; expected that of the pictures.")

    @classmethod
    def of(cls, assignments: Sequence[str], *, partial: bool = False) -> "FolderReading":
        """Read key=value pairs.

        Raises:
            ValueError: There is no such key, or a value doesn't fit.
        """
        names, values = [field.name for field in fields(cls)], {}
        for assignment in assignments:
            name, _, value = assignment.partition("=")
            if name not in names or not value:
                raise ValueError(
                    f"How to read a folder came as {assignment!r}; expected key=value, of {', '.join(names)}."
                )
            values[name] = value
        paths = {name: expanded(values[name]) for name in ("annotations", "images") if name in values}
        return cls(
            format=values.get("format"),
            annotations=paths.get("annotations"),
            images=paths.get("images"),
            unlabelled=values.get("unlabelled"),
            values=values.get("values"),
            reduce_zero_label=_truth(values.get("reduce_zero_label")),
            boxes=values.get("boxes", REFUSED),
            partial=partial or _truth(values.get("partial")),
        )

    @property
    def background(self) -> bool:
        """Whether what has no label is a class of its own."""
        return self.unlabelled == BACKGROUND

    @property
    def no_class(self) -> int | None:
        """The value of label pictures that is no class, if one was given."""
        return int(self.unlabelled) if self.unlabelled is not None and not self.background else None

    @property
    def in_order(self) -> list[int] | None:
        """The value of each class, if they were given."""
        return [int(value) for value in self.values.split(",")] if self.values is not None else None


def _truth(value: str | None) -> bool:
    if value is not None and value.lower() not in ("true", "false"):
        raise ValueError(f"{value!r} came; expected true or false.")
    return value is not None and value.lower() == "true"


AS_IT_SAYS = FolderReading()  # nothing differs
