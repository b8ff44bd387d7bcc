"""What a collection's results can be written as: one table. The files of each picture come at once, those of the whole
at the end."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from wordmask import coco
from wordmask.batch.collected import collect_coco, collect_panoptic, collect_parquet, collect_yolo
from wordmask.batch.polygons import as_polygons
from wordmask.segmentation import Segmentation
from wordmask.vocabulary import Vocabulary
from wordmask.writing import atomic

OVERLAY_QUALITY = 90  # of JPEG
Content = Image.Image | str | Callable[[Path], None]


@dataclass(frozen=True)
class Format:
    """A way to write results.

    Args:
        files: Of one picture: its stem and result → path below the output folder → what is in it.
        details: What the files of the whole need to know of one picture, in plain values.
        collect: Writes the files of the whole: the output folder, the folder for what is unfinished, the vocabulary,
            and the records of all pictures in order, which can be gone through several times.
    """

    files: Callable[[str, Segmentation], dict[str, Content]] = lambda stem, result: {}
    details: Callable[[Segmentation], dict[str, object]] = lambda result: {}
    collect: Callable[[Path, Path, Vocabulary, Iterable[dict]], None] = lambda *_: None


def _label_maps(stem: str, result: Segmentation) -> dict[str, Content]:
    geotiff = result.geotiff()
    return {f"labels/{stem}.png": result.label_image()} | ({f"labels/{stem}.tif": geotiff} if geotiff else {})


def _panoptic_details(result: Segmentation) -> dict[str, object]:
    (annotation,) = result.to_coco_panoptic("")["annotations"]
    return {"segments_info": annotation["segments_info"]}


def _yolo_lines(stem: str, result: Segmentation) -> dict[str, str]:
    """One line a polygon: the label, then x and y as shares of width and height. Pieces of stuff get lines of their
    own."""
    size = result.size[::-1]
    lines = [
        f"{region.label} " + " ".join(f"{number:.6g}" for number in (polygon / size).ravel())
        for region in result.shown
        for polygon in as_polygons(region.mask, whole=region.thing and result.task != "semantic")
    ]
    return {f"yolo/labels/{stem}.txt": "".join(f"{line}\n" for line in lines)}


FORMATS = {
    "labels": Format(files=_label_maps),
    "overlays": Format(files=lambda stem, result: {f"overlays/{stem}.jpg": result.draw()}),
    "coco": Format(details=lambda result: {"annotations": result.to_coco()["annotations"]}, collect=collect_coco),
    "coco-panoptic": Format(
        files=lambda stem, result: {f"panoptic/{stem}.png": coco.panoptic_image(result)},
        details=_panoptic_details,
        collect=collect_panoptic,
    ),
    "yolo": Format(files=_yolo_lines, collect=collect_yolo),
    "parquet": Format(
        details=lambda result: {
            "regions": [region.to_dict() | {"segmentation": region.to_rle()} for region in result.regions]
        },
        collect=collect_parquet,
    ),
}


def check_formats(formats: Iterable[str], task: str) -> tuple[str, ...]:
    """Return the formats once each, in the table's order.

    Raises:
        ValueError: There is no such format, the task doesn't give it, or a package is missing.
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
    stem: str, result: Segmentation, formats: Iterable[str], *, output: Path, unfinished: Path
) -> Iterator[str]:
    """Write the files of one picture, each whole; give their paths below the output."""
    for name in formats:
        for path, content in FORMATS[name].files(stem, result).items():
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


def details_of(result: Segmentation, formats: Iterable[str]) -> dict[str, object]:
    """What the files of the whole need to know of one picture."""
    return {key: value for name in formats for key, value in FORMATS[name].details(result).items()}
