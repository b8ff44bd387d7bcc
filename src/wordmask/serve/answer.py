"""A segmentation → what is sent back."""

import base64
import io
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from wordmask.drawing import PNG_EFFORT, choose_colours
from wordmask.polygons import to_polygons
from wordmask.regions import Region
from wordmask.segmentation import Segmentation
from wordmask.serve.question import Question
from wordmask.writing import JsonObject

if TYPE_CHECKING:
    from PIL.Image import Image


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Size(Closed):
    """In pixels, of the upright picture."""

    height: int
    width: int


class Class(Closed):
    """A word that was asked for."""

    label: int
    names: list[str]
    thing: bool


class Runs(Closed):
    """COCO's compressed run lengths."""

    size: list[int] = Field(description="height, width")
    counts: str


class FoundRegion(Closed):
    """A class that is present, a segment, or an instance."""

    id: int = Field(description="Counts from 1.")
    name: str
    label: int
    thing: bool
    score: float = Field(ge=0, le=1)
    area: int = Field(description="Pixels.")
    box: list[int] = Field(description="left, top, right, bottom; the last two exclusive.")
    runner_up: str | None
    colour: str | None = Field(description="In the overlay, #rrggbb; null for instances too faint to be drawn.")
    segmentation: Runs | None = Field(None, description="With masks=rle.")
    polygons: list[list[list[list[int]]]] | None = Field(
        None,
        description="With masks=polygons: per connected part its rings of [x, y], the outer one first, then holes.",
    )


class Answer(Closed):
    """What was found in a picture."""

    size: Size
    notes: list[str] = Field(description="What was assumed or left out when the picture was read.")
    model: str
    task: Literal["semantic", "panoptic", "instance"]
    settings: JsonObject
    classes: list[Class]
    understood: str | None = Field(
        None, description="How the words were understood, where they look like several classes and are one."
    )
    unlabelled: int = Field(description="The label of pixels that no word took.")
    unlabelled_area: int = Field(description="Their number.")
    regions: list[FoundRegion] | None = Field(None, description="Largest first; instances best first.")
    labels: str | None = Field(
        None, description="PNG in base64, 8 or 16 bits: each pixel's position among the words, from 0."
    )
    overlay: str | None = Field(None, description="PNG in base64: the regions over the picture, with a legend.")
    coco: JsonObject | None = Field(None, description="A COCO detection data set of one image.")


class Problem(BaseModel):
    """What came, what was expected, what to do."""

    detail: str


def describe(result: Segmentation, question: Question, file_name: str) -> JsonObject:
    """Say in plain values what was asked for, as `Answer` has it."""
    answer = result.to_dict(masks=False)
    del answer["picture"], answer["regions"]
    if result.vocabulary.doubt:
        answer["understood"] = result.vocabulary.doubt
    if "regions" in question.wanted:
        colours = choose_colours(result.shown)
        answer["regions"] = [
            region.to_dict() | {"colour": _hex(colours.get(region.id))} | _pixels(region, question.masks)
            for region in result.regions
        ]
    if "labels" in question.wanted:
        answer["labels"] = base64.b64encode(as_png(result.label_image())).decode("ascii")
    if "overlay" in question.wanted:
        answer["overlay"] = base64.b64encode(as_png(result.draw(), compress_level=PNG_EFFORT)).decode("ascii")
    if "coco" in question.wanted:
        answer["coco"] = result.to_coco(file_name=file_name)
    return answer


def as_png(picture: "Image", **settings: int) -> bytes:
    """Encode a picture."""
    file = io.BytesIO()
    picture.save(file, "PNG", **settings)
    return file.getvalue()


def _pixels(region: Region, masks: Literal["rle", "polygons", "none"]) -> JsonObject:
    if masks == "rle":
        return {"segmentation": region.to_rle()}
    return {"polygons": to_polygons(region.mask)} if masks == "polygons" else {}


def _hex(colour: tuple[int, int, int] | None) -> str | None:
    return None if colour is None else "#{:02x}{:02x}{:02x}".format(*colour)
