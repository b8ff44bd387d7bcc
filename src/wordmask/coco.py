"""Results in COCO's formats: detection (instances) and panoptic."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from wordmask.writing import JsonObject

if TYPE_CHECKING:
    from PIL.Image import Image

    from wordmask.segmentation import Segmentation
    from wordmask.vocabulary import Vocabulary


def to_detection(result: "Segmentation", *, image_id: int, file_name: str | None) -> dict[str, Any]:
    """Describe regions as a COCO detection data set of one image."""
    annotations = [
        {
            "id": region.id,
            "image_id": image_id,
            "category_id": region.label + 1,
            "segmentation": region.to_rle(),
            "area": region.area,
            "bbox": corner_and_size(region.box),
            "iscrowd": 0,
            "score": region.score,
        }
        for region in result.regions
    ]
    return heading() | {
        "images": [_image(result, image_id, file_name)],
        "categories": categories(result.vocabulary),
        "annotations": annotations,
    }


def to_panoptic(result: "Segmentation", *, image_id: int, file_name: str | None, segments_file: str) -> dict[str, Any]:
    """Describe panoptic segments as a COCO panoptic data set of one image, whose ids lie in the picture
    `segments_file`.

    Raises:
        ValueError: The result is not panoptic.
    """
    _check_panoptic(result)
    segments = [
        {
            "id": region.id,
            "category_id": region.label + 1,
            "area": region.area,
            "bbox": corner_and_size(region.box),
            "iscrowd": 0,
            "score": region.score,
            "runner_up": region.runner_up,
        }
        for region in result.regions
    ]
    annotation = {"image_id": image_id, "file_name": segments_file, "segments_info": segments}
    return heading() | {
        "images": [_image(result, image_id, file_name)],
        "categories": categories(result.vocabulary),
        "annotations": [annotation],
    }


def panoptic_image(result: "Segmentation") -> "Image":
    """Return segment ids as COCO codes them in colours: red + 256 · green + 65536 · blue; black is nothing.

    Raises:
        ValueError: The result is not panoptic.
    """
    from PIL import Image

    _check_panoptic(result)
    assert result.segments is not None  # as the result is panoptic
    colours = np.zeros((*result.size, 3), np.uint8)  # ids fill 16 bits, so that blue stays 0
    colours[..., 0], colours[..., 1] = result.segments & 255, result.segments >> 8
    return Image.fromarray(colours)


def _check_panoptic(result: "Segmentation") -> None:
    if result.task != "panoptic":
        raise ValueError(
            f"The panoptic format needs a panoptic result; this one is {result.task}. "
            "Ask an EOV-Seg model for task='panoptic'."
        )


def _image(result: "Segmentation", image_id: int, file_name: str | None) -> JsonObject:
    height, width = result.size
    name = file_name if file_name is not None else Path(result.source or "").name
    return {"id": image_id, "file_name": name, "height": height, "width": width}


def categories(vocabulary: "Vocabulary") -> list[dict]:
    """Describe classes as COCO's categories, which count from 1: a label plus 1."""
    return [
        {"id": label + 1, "name": entry.name, "isthing": int(entry.thing)} for label, entry in enumerate(vocabulary)
    ]


def heading() -> JsonObject:
    """What every COCO file begins with; pycocotools 2.0.8 to 2.0.10 can't load results beside a file without it."""
    return {"info": {"description": "Regions that wordmask found"}, "licenses": []}


def corner_and_size(box: tuple[int, int, int, int]) -> list[int]:
    """(left, top, right, bottom) → [left, top, width, height], COCO's `bbox`."""
    left, top, right, bottom = box
    return [left, top, right - left, bottom - top]
