"""The files that all pictures share, made from the records of each: the same records give the same bytes."""

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import NamedTuple

from wordmask.coco import categories, heading
from wordmask.folders import Skips
from wordmask.vocabulary import Vocabulary
from wordmask.writing import JsonObject, atomic

ROWS_AT_ONCE = 10_000  # of the table: a row group


class Failure(NamedTuple):
    """A picture that failed, where it came from, and why."""

    stem: str
    source: str
    error: str


def collect_coco(output: Path, unfinished: Path, vocabulary: Vocabulary, records: Iterable[dict]) -> None:
    """Write instances.json in COCO's detection format: pictures count from 1 in their order, and so do annotations."""
    ids = count(1)
    annotations = (
        annotation | {"id": next(ids), "image_id": number}
        for number, record in _numbered(records)
        for annotation in record["annotations"]
    )
    _write_coco(output / "instances.json", unfinished, vocabulary, records, annotations)


def collect_panoptic(output: Path, unfinished: Path, vocabulary: Vocabulary, records: Iterable[dict]) -> None:
    """Write panoptic.json in COCO's panoptic format; the PNGs are in panoptic/."""
    annotations = (
        {"image_id": number, "file_name": f"{record['picture']}.png", "segments_info": record["segments_info"]}
        for number, record in _numbered(records)
    )
    _write_coco(output / "panoptic.json", unfinished, vocabulary, records, annotations)


def collect_yolo(output: Path, unfinished: Path, vocabulary: Vocabulary, records: Iterable[dict]) -> None:
    """Write yolo/data.yaml with the classes' names; json is yaml, and quotes what needs it."""
    names = "".join(
        f"  {label}: {json.dumps(name, ensure_ascii=False)}\n" for label, name in enumerate(vocabulary.names)
    )
    _write(output / "yolo" / "data.yaml", unfinished, ["path: .\ntrain: images\nval: images\nnames:\n", names])


def collect_parquet(output: Path, unfinished: Path, vocabulary: Vocabulary, records: Iterable[dict]) -> None:
    """Write masks.parquet, a row per region; masks are COCO's compressed run lengths. A picture with none has no
    row."""
    import pyarrow as pa
    from pyarrow import parquet

    numbers = {
        name: pa.int32() for name in ("height", "width", "region", "label", "area", "left", "top", "right", "bottom")
    }
    text = {name: pa.string() for name in ("picture", "file_name", "source", "name", "runner_up", "counts")}
    schema = pa.schema({**text, **numbers, "area": pa.int64(), "thing": pa.bool_(), "score": pa.float64()})
    with atomic(output / "masks.parquet", unfinished) as temporary, parquet.ParquetWriter(temporary, schema) as writer:
        rows: list[dict] = []
        for record in records:
            rows += (_row(record, region) for region in record["regions"])
            while len(rows) >= ROWS_AT_ONCE:
                writer.write_table(pa.Table.from_pylist(rows[:ROWS_AT_ONCE], schema))
                del rows[:ROWS_AT_ONCE]
        writer.write_table(pa.Table.from_pylist(rows, schema))


def write_classes(output: Path, unfinished: Path, vocabulary: Vocabulary, unlabelled: int) -> None:
    """Write classes.json: what the labels mean."""
    content = {"unlabelled": unlabelled, "classes": vocabulary.to_list()}
    _write(output / "classes.json", unfinished, [json.dumps(content, indent=1, ensure_ascii=False)])


def write_report(output: Path, unfinished: Path, *, results: int, failures: Sequence[Failure], skips: Skips) -> None:
    """Write report.json: what became of every input."""
    left_out = {str(reason): {"count": skips.counts[reason], "names": names} for reason, names in skips.names.items()}
    content = {
        "inputs": results + len(failures) + len(skips),
        "results": results,
        "failures": len(failures),
        "skipped": len(skips),
        "failed": [failure._asdict() for failure in failures],
        "left_out": left_out,
    }
    # bytes of names that are no UTF-8 become escapes, which json has too
    text = json.dumps(content, indent=1, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()
    _write(output / "report.json", unfinished, [text])


def write_failures(output: Path, unfinished: Path, failures: Sequence[Failure]) -> None:
    """Write failed.csv: picture, source, error; remove an earlier one if nothing failed."""
    import csv

    path = output / "failed.csv"
    if not failures:
        path.unlink(missing_ok=True)
        return
    with (
        atomic(path, unfinished) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        csv.writer(file).writerows([("picture", "source", "error"), *failures])


def _numbered(records: Iterable[dict]) -> Iterator[tuple[int, dict]]:
    return enumerate(records, 1)


def _row(record: dict, region: dict) -> JsonObject:
    left, top, right, bottom = region["box"]
    picture = {name: record[name] for name in ("picture", "file_name", "source", "height", "width")}
    kept = {name: region[name] for name in ("label", "name", "thing", "score", "area", "runner_up")}
    box = {"left": left, "top": top, "right": right, "bottom": bottom}
    return picture | kept | box | {"region": region["id"], "counts": region["segmentation"]["counts"]}


def _write_coco(
    path: Path, unfinished: Path, vocabulary: Vocabulary, records: Iterable[dict], annotations: Iterable[dict]
) -> None:
    """Write a data set piece by piece: it may be larger than the memory."""
    images = (
        {"id": number, "file_name": record["file_name"], "height": record["height"], "width": record["width"]}
        for number, record in _numbered(records)
    )

    def parts() -> Iterator[str]:
        yield json.dumps(heading())[:-1]
        for opening, entries in (
            (', "images": [', images),
            ('], "categories": [', categories(vocabulary)),
            ('], "annotations": [', annotations),
        ):
            yield opening
            for number, entry in enumerate(entries):
                yield (",\n" if number else "\n") + json.dumps(entry, ensure_ascii=False)
        yield "]}\n"

    _write(path, unfinished, parts())


def _write(path: Path, unfinished: Path, parts: Iterable[str]) -> None:
    with atomic(path, unfinished) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(parts)
