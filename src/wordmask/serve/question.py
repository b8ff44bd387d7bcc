"""What a request may ask, field by field; the API's description of it is made from this."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from wordmask.settings import DEFAULT_MOST, DEFAULT_OVERLAP, MOST_INSTANCES, MOST_KEPT, Settings, Task
from wordmask.vocabulary import Synonyms

TEXT_BYTES = 2**18  # of a request beside its picture

Text = Annotated[str, StringConstraints(max_length=TEXT_BYTES)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Wanted = Literal["regions", "labels", "overlay", "coco"]


class Question(BaseModel):
    """What to look for, and what to send back."""

    model_config = ConfigDict(extra="forbid")

    words: list[Text] | Text = Field(
        default_factory=list,
        description='One class each, or several with ";" between; commas separate synonyms: "car, automobile". '
        '"[stuff]" or "[thing]" at the end says whether it is counted.',
        examples=[["cup, mug", "spoon", "table"]],
    )
    vocabulary: Text | None = Field(None, description="A built-in list instead of words, such as ade20k-150.")
    model: Text | None = Field(None, description="One of `GET /v1/models`; the first if left out.")
    task: Task | None = Field(None, description="EOV-Seg does all (panoptic if left out), ERR-Seg is semantic.")
    threshold: Share = Field(
        Settings.threshold, description="Leave out what is less probable: pixels, segments or instances."
    )
    background: Literal["other"] | None = Field(
        None, description='"other" lets everyday things compete; what they win is unlabelled.'
    )
    synonyms: Synonyms | None = Field(
        None, description="A class is its first name, the mean of all, or the best of each."
    )
    keep: int | None = Field(None, ge=1, le=MOST_KEPT, description="ERR-Seg: how many classes are refined.")
    overlap: Share | None = Field(
        None, description=f"Panoptic: the share of its pixels a mask must win; {DEFAULT_OVERLAP}."
    )
    most: int | None = Field(
        None,
        ge=1,
        le=MOST_INSTANCES,
        description=f"Instance: how many pairs of mask and class are looked at; {DEFAULT_MOST}.",
    )
    masks: Literal["rle", "polygons", "none"] = Field(
        "rle",
        description=(
            "How the regions' pixels are written: COCO's compressed run lengths, "
            "polygons along the pixels' edges, or not."
        ),
    )
    wanted: list[Wanted] = Field(
        ["regions"],
        alias="return",
        min_length=1,
        max_length=4,
        description="regions; labels and overlay as PNG; coco as a data set.",
    )

    @property
    def settings(self) -> Settings:
        """What it says of settings."""
        return Settings(
            task=self.task,
            keep=self.keep,
            threshold=self.threshold,
            overlap=self.overlap,
            most=self.most,
            background=self.background,
            synonyms=self.synonyms,
        )


class JsonQuestion(Question):
    """A question with its picture in it."""

    picture: str = Field(
        description="A picture file in base64, or a data URL of one.", json_schema_extra={"contentEncoding": "base64"}
    )
