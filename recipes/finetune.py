"""Fine-tune a model on one's own pictures, keep its open vocabulary, and see what both cost.

command   wordmask train recipes/finetune.py data=FOLDER start=err-seg-base
data      FOLDER/images/*, FOLDER/labels/*.png (class numbers; 255: none), FOLDER/names.txt (a class a line);
          or what CVAT, Label Studio, Roboflow, Ultralytics, labelme or `wordmask batch` wrote: docs/training.md
hardware  one GPU of 12 GB or more for the full-size models (precision=float16; not measured); a laptop for the
          tiny ones
"""

from wordmask.training import finetune
from wordmask.training.loop import TrainingOutcome
from wordmask.training.recipe import Recipe


class Settings(finetune.FineTuneSettings):
    """See `FineTuneSettings`."""


def build(settings: Settings) -> Recipe:
    data = finetune.open_data(settings)
    model = finetune.with_classes(finetune.load_model(settings.start).model, data.learn.vocabulary)
    return finetune.build(settings, model, data)


def run(settings: Settings) -> TrainingOutcome:
    return finetune.finetune(settings)
