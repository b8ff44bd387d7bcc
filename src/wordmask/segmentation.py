"""What the user gets: a label map, scored regions, and the ways to keep them."""

import json
import os
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wordmask import adapters, coco
from wordmask.georeference import read_georeference, write_geotiff
from wordmask.regions import LEAST_SHOWN, Region, label_type, unlabelled_value
from wordmask.settings import ChosenSettings, Task
from wordmask.vocabulary import Vocabulary
from wordmask.writing import JsonObject, atomic, expanded

if TYPE_CHECKING:
    from collections.abc import Callable

    import fiftyone  # pyright: ignore[reportMissingImports]  # an extra that is large
    import supervision
    from PIL.Image import Image

TASK_ENDINGS: dict[str, tuple[str, ...]] = {  # of the files in COCO's formats
    "semantic": (),
    "panoptic": (".panoptic.png", ".panoptic.json"),
    "instance": (".instances.json",),
}
GEO_ENDING = ".labels.tif"


@dataclass(frozen=True, eq=False)
class Origin:
    """What a result is of, and how it was asked for.

    Args:
        picture: (H, W, 3) uint8, as it was read: upright.
        vocabulary: The words asked for.
        settings: What they were asked with.
        model: Its name.
        source: The file the picture was read from, if any.
        notes: What was assumed or left out when it was read.
    """

    picture: np.ndarray
    vocabulary: Vocabulary
    settings: ChosenSettings
    model: str
    source: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A labelled picture.

    Args:
        labels: (H, W), uint8 for up to 254 classes, else uint16; 0-based indices into `vocabulary`, `unlabelled` (255
            or 65535) elsewhere. Where instances overlap, the best one's; those with a score below 0.1 don't count.
        regions: One per class present (semantic) or per segment (panoptic), largest first; or one per instance, best
            first.
        origin: The picture, the words, the settings and the model; their fields can also be read here.
        segments: (H, W) uint16, the id of each pixel's region, 0 where there is none; of instances as `labels`. None if
            semantic.
        confidence: Probability of every pixel's label, (H, W) float32; on request.
        runner_up: Second-best label of every pixel, coded as `labels`; on request.
        runner_up_confidence: Its probability, (H, W) float32; on request.
    """

    labels: np.ndarray
    regions: list[Region]
    origin: Origin
    segments: np.ndarray | None = None
    confidence: np.ndarray | None = None
    runner_up: np.ndarray | None = None
    runner_up_confidence: np.ndarray | None = None

    def __post_init__(self) -> None:
        assert self.labels.dtype == label_type(len(self.vocabulary)), self.labels.dtype
        assert self.labels.shape == self.picture.shape[:2], (self.labels.shape, self.picture.shape)

    def __repr__(self) -> str:
        height, width = self.size
        found = f"{len({region.label for region in self.regions})} of {len(self.vocabulary)} classes"
        regions = "" if self.task == "semantic" else f", {self.task}: {len(self.regions)} regions"
        return f"Segmentation({height}×{width}, {found}{regions}, model={self.model!r})"

    @property
    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8, as it was read: upright."""
        return self.origin.picture

    @property
    def vocabulary(self) -> Vocabulary:
        """The words asked for."""
        return self.origin.vocabulary

    @property
    def settings(self) -> ChosenSettings:
        """What was asked for, with everything chosen that was left open."""
        return self.origin.settings

    @property
    def task(self) -> Task:
        """`semantic`, `panoptic` or `instance`."""
        return self.origin.settings.task

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.origin.model

    @property
    def source(self) -> str | None:
        """The file the picture was read from, if any."""
        return self.origin.source

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed or left out when the picture was read, in words."""
        return self.origin.notes

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the picture."""
        height, width = self.labels.shape
        return height, width

    @property
    def unlabelled(self) -> int:
        """The value of `labels` where no word fits."""
        return unlabelled_value(len(self.vocabulary))

    @cached_property
    def unlabelled_area(self) -> int:
        """Pixels that no word took."""
        return int(np.count_nonzero(self.labels == self.unlabelled))

    @property
    def shown(self) -> list[Region]:
        """The regions that are painted and drawn: all, without faint instances."""
        return [region for region in self.regions if self.task != "instance" or region.score >= LEAST_SHOWN]

    def visible(self, region: Region) -> np.ndarray:
        """The pixels of a region that no better one covers, (H, W) bool."""
        return region.mask if self.segments is None else self.segments == region.id

    def draw(self, legend: bool = True) -> "Image":
        """Draw the regions over the picture, outlined and named, with a legend below."""
        from wordmask.drawing import draw

        return draw(self, legend=legend)

    def save(self, stem: Path | str) -> list[Path]:
        """Write `stem`.masks.png (overlay), `stem`.labels.png (label map) and `stem`.masks.json; return the paths.

        For a GeoTIFF, where rasterio is installed, `stem`.labels.tif is the label map with the same reference system
        and transform. A panoptic result is also written as `stem`.panoptic.png and .panoptic.json, instances as
        `stem`.instances.json: COCO's formats. What an earlier result of another task left beside them is removed.
        The files appear whole, and only when all are written; `stem`.masks.json comes last.

        Raises:
            ValueError: `stem` names no file, or a folder is in the way.
            OSError: The folder cannot be written to.
        """
        given, stem = stem, expanded(stem)
        if stem.name in ("", "..") or str(given).endswith(("/", os.sep)) or str(given) == "~":
            raise ValueError(
                f"{str(given)!r} is a folder; give a name inside it, such as {str(Path(given) / 'street')!r}."
            )
        contents = {
            stem.with_name(stem.name + ending): content for ending, content in self._contents(stem.name).items()
        }
        blocked = [path for path in contents if path.is_dir()]
        if blocked:
            raise ValueError(
                f"{str(blocked[0])!r} is a folder, where a result is to be written. Move it, or choose another name."
            )
        with ExitStack() as files:
            for path, content in reversed(contents.items()):
                temporary = files.enter_context(atomic(path))
                if isinstance(content, dict):
                    temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
                elif callable(content):
                    content(temporary)
                else:
                    content.save(temporary)
            for stale in earlier_files(stem) - contents.keys():
                with suppress(OSError):  # open elsewhere, for example: no reason to lose what is ready
                    stale.unlink()
        return list(contents)

    def _contents(self, stem: str) -> "dict[str, Image | dict | Callable[[Path], None]]":
        """What is saved: the ending of each file → its content; the description comes last."""
        from wordmask.drawing import PNG_EFFORT

        contents: dict[str, Image | dict | Callable[[Path], None]] = {
            ".masks.png": partial(self.draw().save, compress_level=PNG_EFFORT),
            ".labels.png": self.label_image(),
        }
        geotiff = self.geotiff()
        if geotiff is not None:
            contents[GEO_ENDING] = geotiff
        if self.task == "panoptic":
            contents[".panoptic.png"] = self.panoptic_image()
            contents[".panoptic.json"] = self.to_coco_panoptic(f"{stem}.panoptic.png")
        elif self.task == "instance":
            contents[".instances.json"] = self.to_coco()
        contents[".masks.json"] = self.to_dict()
        return contents

    def label_image(self) -> "Image":
        """Return the label map as a picture whose values are the labels: of 8 bits with a palette, so that it can be
        looked at, in the colours of the overlay and black where it is unlabelled; of 16 bits grey."""
        from PIL import Image

        from wordmask.drawing import palette

        image = Image.fromarray(self.labels)
        if self.labels.dtype == np.uint8:
            colours = palette().copy()
            colours[self.unlabelled] = 0
            image.putpalette(colours.tobytes())  # the mode becomes P; the values stay
        return image

    def geotiff(self) -> "Callable[[Path], None] | None":
        """Return what writes the label map as a GeoTIFF that lies where the picture does, if that is known; needs
        rasterio."""
        place = read_georeference(self.source, self.size)
        return place and partial(write_geotiff, labels=self.labels, place=place, unlabelled=self.unlabelled)

    def to_dict(self, *, masks: bool = True) -> JsonObject:
        """Describe the result in plain values, as in the json file; without the regions' pixels if not `masks`."""
        regions = [region.to_dict() | ({"segmentation": region.to_rle()} if masks else {}) for region in self.regions]
        return {
            "picture": self.source,
            "size": {"height": self.size[0], "width": self.size[1]},
            "notes": list(self.notes),
            "model": self.model,
            "task": self.task,
            "settings": self.settings.to_dict(),
            "unlabelled": self.unlabelled,
            "unlabelled_area": self.unlabelled_area,
            "classes": self.vocabulary.to_list(),
            "regions": regions,
        }

    def to_coco(self, image_id: int = 1, file_name: str | None = None) -> dict[str, Any]:
        """Describe the regions as a COCO detection data set of one image; its file's name is that of the picture if
        None.

        COCO counts categories from 1: `category_id` is the label plus 1. `bbox` is [left, top, width, height].
        """
        return coco.to_detection(self, image_id=image_id, file_name=file_name)

    def to_coco_panoptic(self, segments_file: str, image_id: int = 1, file_name: str | None = None) -> dict[str, Any]:
        """Describe panoptic segments as a COCO panoptic data set of one image; categories count from 1.

        Args:
            segments_file: Name of the file that `panoptic_image` is saved as.

        Raises:
            ValueError: The result is not panoptic.
        """
        return coco.to_panoptic(self, image_id=image_id, file_name=file_name, segments_file=segments_file)

    def panoptic_image(self) -> "Image":
        """Return the ids of panoptic segments as COCO codes them in colours: red + 256 · green + 65536 · blue.

        Raises:
            ValueError: The result is not panoptic.
        """
        return coco.panoptic_image(self)

    def to_supervision(self) -> "supervision.Detections":
        """Return the regions as supervision's detections; see `adapters.to_supervision`."""
        return adapters.to_supervision(self)

    def to_fiftyone(self) -> "fiftyone.Detections | fiftyone.Segmentation":
        """Return the result as a FiftyOne label; see `adapters.to_fiftyone`."""
        return adapters.to_fiftyone(self)

    def to_labelstudio(self, image: str | None = None) -> JsonObject:
        """Return the result as a Label Studio task with pre-annotations; see `adapters.to_labelstudio`."""
        return adapters.to_labelstudio(self, image)


def earlier_files(stem: Path) -> set[Path]:
    """The COCO files of an earlier result of this name, by what its description says; none if we wrote no
    description."""
    try:
        task = json.loads(stem.with_name(stem.name + ".masks.json").read_text(encoding="utf-8"))["task"]
        return {stem.with_name(stem.name + ending) for ending in (GEO_ENDING, *TASK_ENDINGS[task])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
