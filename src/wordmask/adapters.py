"""A Segmentation in the words of other people's tools: supervision, FiftyOne, Label Studio, CVAT, Hugging Face
datasets.

None of them is needed to import this; what needs one says how to install it.
"""

import json
import zipfile
from collections.abc import Iterable, Sequence
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from xml.sax.saxutils import quoteattr

import numpy as np

from wordmask import coco
from wordmask.writing import JsonObject, atomic, expanded

if TYPE_CHECKING:
    from types import ModuleType

    import datasets  # pyright: ignore[reportMissingImports]  # an extra that development does without
    import fiftyone  # pyright: ignore[reportMissingImports]  # likewise
    import supervision

    from wordmask.regions import Region
    from wordmask.segmentation import Segmentation
    from wordmask.vocabulary import Vocabulary

# package → our extra that brings it
EXTRAS = {"supervision": "supervision", "datasets": "datasets", "fiftyone": "fiftyone"}
RUN_BITS = (4, 8, 12, 16)  # widths that the length of a run may have in Label Studio's brush format
VALUE_BITS = 8
LONGEST_RUN = 2 ** RUN_BITS[-1]
# where CVAT looks in an archive; "default" is the name of its one subset
CVAT_FILE = "annotations/instances_default.json"


def optional(package: str) -> "ModuleType":
    """Import a package that not everybody has.

    Raises:
        ValueError: It is not installed.
    """
    try:
        return import_module(package)
    except ImportError:
        raise ValueError(
            f"This needs the package {package}. Install it: pip install 'wordmask[{EXTRAS[package]}]'"
        ) from None


def to_supervision(result: "Segmentation") -> "supervision.Detections":
    """Turn regions into supervision's detections: boxes, masks, scores, labels; names under `data["class_name"]`.

    Raises:
        ValueError: supervision is not installed.
    """
    sv, regions = optional("supervision"), result.regions
    if not regions:
        return sv.Detections.empty()
    return sv.Detections(
        xyxy=np.array([region.box for region in regions], np.float32),
        mask=np.stack([region.mask for region in regions]),
        confidence=np.array([region.score for region in regions], np.float32),
        class_id=np.array([region.label for region in regions]),
        data={"class_name": np.array([region.name for region in regions])},
    )


def to_fiftyone(result: "Segmentation") -> "fiftyone.Detections | fiftyone.Segmentation":
    """Turn a result into a FiftyOne label: a semantic one into its label map plus 1 (0 is nothing), others into a
    detection per region.

    `mask_targets` says what the values of the map mean.

    Raises:
        ValueError: fiftyone is not installed.
    """
    fo = optional("fiftyone")
    if result.task == "semantic":
        mask = np.where(result.labels == result.unlabelled, 0, result.labels.astype(np.uint32) + 1)
        return fo.Segmentation(mask=mask.astype(np.uint8 if len(result.vocabulary) < 256 else np.uint16))
    height, width = result.size
    detections = []
    for region in result.regions:
        left, top, right, bottom = region.box
        box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
        inside = region.mask[top:bottom, left:right]  # FiftyOne's masks fill their box
        detections.append(
            fo.Detection(label=region.name, bounding_box=box, mask=inside, confidence=region.score, index=region.id)
        )
    return fo.Detections(detections=detections)


def mask_targets(vocabulary: "Vocabulary") -> dict[int, str]:
    """What the values of `to_fiftyone`'s label map mean, as FiftyOne's `default_mask_targets` wants it."""
    return dict(enumerate(vocabulary.names, 1))


# Label Studio ---------------------------------------------------------------------------------------------------------


def to_labelstudio(
    result: "Segmentation", image: str | None = None, *, from_name: str = "label", to_name: str = "image"
) -> JsonObject:
    """Describe a result as a Label Studio task with pre-annotations: brush masks, to be imported as json in a list.

    Args:
        image: Where Label Studio finds the picture, usually a URL; the name of the file if None.
        from_name: The name of BrushLabels in the labelling configuration; see `labelstudio_config`.
        to_name: The name of Image there.

    Raises:
        ValueError: The picture wasn't read from a file, and `image` doesn't say where it is.
    """
    name = image if image is not None else Path(result.source or "").name
    if not name:
        raise ValueError("The picture has no file name, by which Label Studio finds it. Give its URL as image=….")
    height, width = result.size
    regions = [
        {
            "id": str(region.id),
            "type": "brushlabels",
            "from_name": from_name,
            "to_name": to_name,
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "score": region.score,
            "value": {"format": "rle", "rle": brush_rle(region.mask), "brushlabels": [region.name]},
        }
        for region in result.shown
    ]
    score = float(np.mean([region.score for region in result.shown])) if regions else 0.0
    return {
        "data": {to_name: name},
        "predictions": [{"model_version": result.model, "score": score, "result": regions}],
    }


def labelstudio_config(vocabulary: "Vocabulary", *, from_name: str = "label", to_name: str = "image") -> str:
    """Write the labelling configuration that the pre-annotations belong to."""
    labels = "\n".join(f"    <Label value={quoteattr(name)}/>" for name in dict.fromkeys(vocabulary.names))
    image = f"  <Image name={quoteattr(to_name)} value={quoteattr('$' + to_name)}/>"
    brush = f"  <BrushLabels name={quoteattr(from_name)} toName={quoteattr(to_name)}>"
    return f"<View>\n{image}\n{brush}\n{labels}\n  </BrushLabels>\n</View>\n"


def brush_rle(mask: np.ndarray) -> list[int]:
    """Encode a mask, (H, W) bool, as Label Studio's brush: the bytes of an RGBA picture, all 255 inside and 0 outside,
    in runs of bits.

    32 bits: how many bytes; 5: the bits of a value - 1; four times 4: the widths of a run's length - 1. Then for each
    run: 1; 2 bits that choose a width; the length - 1 in that width; the value. github.com/thi-ng/umbrella, package
    rle-pack, has the format.
    """
    flat = mask.ravel()
    borders = [0, *(np.flatnonzero(np.diff(flat)) + 1).tolist(), flat.size]
    header = [f"{4 * flat.size:032b}", f"{VALUE_BITS - 1:05b}", *(f"{width - 1:04b}" for width in RUN_BITS)]
    bits = "".join(header + [_run(4 * (end - start), 255 if flat[start] else 0) for start, end in pairwise(borders)])
    bits += "0" * (-len(bits) % 8)
    return list(int(bits, 2).to_bytes(len(bits) // 8, "big"))


def _run(length: int, value: int) -> str:
    """The bits of so many equal bytes: more than fit a run make several."""
    rest = length % LONGEST_RUN
    return "".join(_short_run(part, value) for part in [LONGEST_RUN] * (length // LONGEST_RUN) + [rest] * bool(rest))


def _short_run(length: int, value: int) -> str:
    place, bits = next((place, bits) for place, bits in enumerate(RUN_BITS) if length <= 2**bits)
    return f"1{place:02b}{length - 1:0{bits}b}{value:0{VALUE_BITS}b}"


# CVAT -----------------------------------------------------------------------------------------------------------------


def write_cvat(results: "Iterable[Segmentation]", path: Path | str, *, names: Sequence[str] | None = None) -> Path:
    """Write an archive that CVAT imports into a task with these pictures, as "COCO 1.0": each region is a mask.

    CVAT finds a picture by its file's name, and a label by its name: the task must have those of `cvat_labels`.

    Args:
        names: Of the pictures in the task, one a result; the names of their files if None.

    Raises:
        ValueError: No results, results of other words than the first's, a picture without a name or with that of
            another, or a path that doesn't end in .zip.
    """
    path = expanded(path)
    if path.suffix != ".zip":
        raise ValueError(f"The archive came as {str(path)!r}; expected a name that ends in .zip.")
    content = json.dumps(join_coco(list(results), names), ensure_ascii=False)
    with atomic(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CVAT_FILE, content)
    return path


def cvat_labels(vocabulary: "Vocabulary") -> list[JsonObject]:
    """The labels of a task, as CVAT's raw label editor takes them (as json)."""
    return [{"name": name, "type": "mask", "attributes": []} for name in dict.fromkeys(vocabulary.names)]


def join_coco(results: "Sequence[Segmentation]", names: Sequence[str] | None = None) -> JsonObject:
    """Describe results with the same words as one COCO detection data set; ids of pictures and annotations count from
    1.

    Raises:
        ValueError: No results, other words than the first's, or a picture without a name of its own.
    """
    _check_same_words(results)
    names = [Path(result.source or "").name for result in results] if names is None else names
    _check_names(names, len(results))
    images, annotations = [], []
    for number, (name, result) in enumerate(zip(names, results, strict=True), 1):
        one = coco.to_detection(result, image_id=number, file_name=name)
        images += one["images"]
        annotations += [entry | {"id": len(annotations) + place} for place, entry in enumerate(one["annotations"], 1)]
    categories = coco.categories(results[0].vocabulary)
    return coco.heading() | {"images": images, "categories": categories, "annotations": annotations}


def _check_names(names: Sequence[str], count: int) -> None:
    if len(names) != count:
        raise ValueError(f"{len(names)} names came for {count} results; expected one each.")
    seen: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        what = "has no file name" if not name else f"has the file name {name!r}, as result {seen.get(name)} does"
        if not name or name in seen:
            raise ValueError(
                f"Result {number} {what}; pictures are found by their names. Give each its own, as it is called there: "
                "names=[…]."
            )
        seen[name] = number


# Hugging Face datasets ------------------------------------------------------------------------------------------------


def to_dataset(results: "Sequence[Segmentation]") -> "datasets.Dataset":
    """Collect results with the same words in a data set: picture, label map, and regions with COCO's run lengths; see
    `features`.

    Raises:
        ValueError: No results, other words than the first's, or datasets is not installed.
    """
    results = list(results)
    _check_same_words(results)
    from PIL import Image

    rows = []
    for result in results:
        rows.append(
            {
                "file_name": Path(result.source or "").name,
                "image": Image.fromarray(result.picture),
                "labels": Image.fromarray(result.labels),  # grey, as data sets there have it
                "regions": [_region_row(region) for region in result.regions],
            }
        )
    return optional("datasets").Dataset.from_list(rows, features=features(results[0].vocabulary))


def _region_row(region: "Region") -> JsonObject:
    return {
        "id": region.id,
        "label": region.label,
        "score": region.score,
        "area": region.area,
        "bbox": coco.corner_and_size(region.box),
        "segmentation": region.to_rle(),
    }


def features(vocabulary: "Vocabulary") -> "datasets.Features":
    """The columns of a data set with these words. A name that two classes share has its label behind it in the second.

    Raises:
        ValueError: datasets is not installed.
    """
    ds, names = optional("datasets"), vocabulary.names
    unique = [f"{name} ({label})" if name in names[:label] else name for label, name in enumerate(names)]
    region = {
        "id": ds.Value("int32"),
        "label": ds.ClassLabel(names=unique),
        "score": ds.Value("float32"),
        "area": ds.Value("int64"),
        "bbox": ds.Sequence(ds.Value("int32"), length=4),
        "segmentation": {"size": ds.Sequence(ds.Value("int32"), length=2), "counts": ds.Value("string")},
    }
    return ds.Features(
        {"file_name": ds.Value("string"), "image": ds.Image(), "labels": ds.Image(), "regions": [region]}
    )


def _check_same_words(results: "Sequence[Segmentation]") -> None:
    if not results:
        raise ValueError("No results came; expected at least one.")
    names = results[0].vocabulary.names
    for number, result in enumerate(results, 1):
        if result.vocabulary.names != names:
            raise ValueError(
                f"Result {number} has the words {', '.join(result.vocabulary.names[:3])} …, the first one "
                f"{', '.join(names[:3])} …: labels mean another thing in each. Ask for the same words, or write two "
                "data sets."
            )
