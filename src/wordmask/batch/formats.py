"""What a collection's results can be written as: one table. The files of each picture come at once, those of the whole
at the end."""

import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from PIL import Image

from wordmask import coco
from wordmask.batch.collected import collect_coco, collect_panoptic, collect_parquet, collect_yolo
from wordmask.batch.inputs import Item
from wordmask.batch.journal import Record
from wordmask.batch.polygons import as_polygons
from wordmask.batch.tars import Member
from wordmask.segmentation import Segmentation
from wordmask.vocabulary import Vocabulary
from wordmask.writing import atomic

OVERLAY_QUALITY, FRAME_QUALITY = 90, 95  # of JPEG
IMAGES = re.compile("^images~*$")  # readers of YOLO's format take the last folder of this name for its own
Content = Image.Image | str | Callable[[Path], None]


def no_files(item: Item, result: Segmentation) -> Mapping[str, Content]:
    """What a format writes of one picture that has files of the whole alone."""
    return {}


def no_details(result: Segmentation) -> Record:
    """What a format remembers of one picture that has no files of the whole."""
    return {}


def collect_nothing(output: Path, unfinished: Path, vocabulary: Vocabulary, records: Iterable[dict]) -> None:
    """Write the files of the whole of a format that has none."""


@dataclass(frozen=True)
class Format:
    """A way to write results.

    Args:
        files: Of one picture: it and its result → path below the output folder → what is in it.
        details: What the files of the whole need to know of one picture, in plain values.
        collect: Writes the files of the whole: the output folder, the folder for what is unfinished, the vocabulary,
            and the records of all pictures in order, which can be gone through several times.
    """

    files: Callable[[Item, Segmentation], Mapping[str, Content]] = no_files
    details: Callable[[Segmentation], Record] = no_details
    collect: Callable[[Path, Path, Vocabulary, Iterable[dict]], None] = collect_nothing


def label_files(item: Item, result: Segmentation) -> Mapping[str, Content]:
    files: dict[str, Content] = {f"labels/{item.stem}.png": result.label_image()}
    if geotiff := result.geotiff():
        files[f"labels/{item.stem}.tif"] = geotiff
    return files


def overlay_file(item: Item, result: Segmentation) -> Mapping[str, Content]:
    return {f"overlays/{item.stem}.jpg": result.draw()}


def panoptic_file(item: Item, result: Segmentation) -> Mapping[str, Content]:
    return {f"panoptic/{item.stem}.png": coco.panoptic_image(result)}


def yolo_files(item: Item, result: Segmentation) -> Mapping[str, Content]:
    """One line a polygon: the label, then x and y as shares of width and height; pieces of stuff get lines of their
    own. And the picture beside it, under the same name: so a reader finds one by the other."""
    size, lines = result.size[::-1], []
    for region in result.shown:
        for polygon in as_polygons(region.mask, whole=region.thing and result.task != "semantic"):
            shares = " ".join(f"{number:.6g}" for number in (polygon / size).ravel())
            lines.append(f"{region.label} {shares}\n")
    name = "/".join(IMAGES.sub(r"\g<0>~", part) for part in item.stem.split("/"))
    ending = PurePosixPath(item.file_name).suffix or ".jpg"
    return {
        f"yolo/labels/{name}.txt": "".join(lines),
        f"yolo/images/{name}{ending}": partial(put_picture, item, result),
    }


def put_picture(item: Item, result: Segmentation, place: Path) -> None:
    """Put a picture where a data set has it: a link to the file, or the bytes out of a shard, or a frame."""
    if isinstance(item.part, Member):
        place.write_bytes(item.part.read(item.path))
    elif item.part is not None:
        Image.fromarray(result.picture).save(place, quality=FRAME_QUALITY)
    else:
        try:
            place.symlink_to(item.path.absolute())
        except OSError:  # a system without links
            shutil.copyfile(item.path, place)


def coco_details(result: Segmentation) -> Record:
    return {"annotations": result.to_coco()["annotations"]}


def panoptic_details(result: Segmentation) -> Record:
    (annotation,) = result.to_coco_panoptic("")["annotations"]
    return {"segments_info": annotation["segments_info"]}


def table_details(result: Segmentation) -> Record:
    return {"regions": [region.to_dict() | {"segmentation": region.to_rle()} for region in result.regions]}


FORMATS = {
    "labels": Format(files=label_files),
    "overlays": Format(files=overlay_file),
    "coco": Format(details=coco_details, collect=collect_coco),
    "coco-panoptic": Format(files=panoptic_file, details=panoptic_details, collect=collect_panoptic),
    "yolo": Format(files=yolo_files, collect=collect_yolo),
    "parquet": Format(details=table_details, collect=collect_parquet),
}


def check_formats(formats: Iterable[str], task: str) -> tuple[str, ...]:
    """Return the formats once each, in the table's order.

    Raises:
        ValueError: There is no such format, the task has no such results, or a package is missing.
    """
    asked = set(formats)
    unknown = asked - FORMATS.keys()
    if unknown or not asked:
        raise ValueError(
            f"The format came as {', '.join(sorted(unknown)) or 'nothing'}; "
            f"expected one or more of {', '.join(FORMATS)}."
        )
    if "coco-panoptic" in asked and task != "panoptic":
        raise ValueError(
            f"The format coco-panoptic needs the task panoptic, which EOV-Seg models do; this one is {task}. "
            "Take coco instead."
        )
    if "parquet" in asked:
        try:
            import pyarrow  # noqa: F401
        except ImportError:
            raise ValueError("The format parquet needs pyarrow. Install it: pip install 'wordmask[parquet]'.") from None
    return tuple(name for name in FORMATS if name in asked)


def write_picture(
    item: Item, result: Segmentation, formats: Iterable[str], *, output: Path, unfinished: Path
) -> Iterator[str]:
    """Write the files of one picture, each whole; yield their paths below the output."""
    for name in formats:
        for path, content in FORMATS[name].files(item, result).items():
            with atomic(output / path, unfinished) as temporary:
                if isinstance(content, str):
                    temporary.write_text(content, encoding="utf-8")
                elif callable(content):
                    content(temporary)
                elif temporary.suffix == ".jpg":
                    content.convert("RGB").save(temporary, quality=OVERLAY_QUALITY)
                else:
                    content.save(temporary)
            yield path


def details_of(result: Segmentation, formats: Iterable[str]) -> Record:
    """What the files of the whole need to know of one picture."""
    details: Record = {}
    for name in formats:
        details |= FORMATS[name].details(result)
    return details
