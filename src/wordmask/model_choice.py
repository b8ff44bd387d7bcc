"""Which model, and what it runs on, as a person says it."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from wordmask.terminal import busy, say
from wordmask.writing import expanded

if TYPE_CHECKING:
    from wordmask.hardware import Precision
    from wordmask.segmenter import Segmenter


@dataclass(frozen=True)
class ModelChoice:
    """What `wordmask.load` takes first of all.

    Args:
        name: A preset, a checkpoint file, or a hub id.
        device: `auto`, or a device of torch.
        precision: Of the image side.
    """

    name: str
    device: str = "auto"
    precision: "Precision" = "auto"

    def absolute(self) -> "ModelChoice":
        """The same model in whichever folder a process works: a file by its whole path."""
        path = expanded(self.name)
        return replace(self, name=str(path.resolve())) if path.is_file() else self

    def load(self) -> "Segmenter":
        """Load the model, with a sign of life on the terminal.

        Raises:
            ValueError: As `wordmask.load`.
        """
        with busy(f"Loading {self.name} …"):
            from wordmask.segmenter import load

            segmenter = load(self.name, device=self.device, precision=self.precision)
        if self.name.endswith("-untrained"):
            say(f"note: {self.name} has random weights; its labels mean nothing.", err=True)
        return segmenter
