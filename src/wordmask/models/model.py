"""What every model offers the rest of the project, and how its parts are told apart."""

from collections.abc import Iterator, Mapping
from dataclasses import Field
from typing import Any, ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from wordmask.clip import Clip, ClipConfig
from wordmask.raw import RawOutput
from wordmask.settings import Askable

Anything = Any  # what a family of its own asks for: a signature that a type checker can't know


@runtime_checkable
class HasClip(Protocol):
    """A configuration: a frozen dataclass whose `clip` says which towers the model stands on."""

    __dataclass_fields__: ClassVar[dict[str, Field[Anything]]]

    @property
    def clip(self) -> ClipConfig: ...


@runtime_checkable
class ModelClass(Protocol):
    """What makes a model of a configuration: its class, usually."""

    @property
    def vocabularies(self) -> str: ...

    def __call__(self, configuration: Anything, /) -> "Model": ...


@runtime_checkable
class Model(Askable, Protocol):
    """An `nn.Module` that turns pixels and words into raw tensors.

    Besides what settings ask of it (`family`, `tasks`, the first of which is its own, `synonyms`, `keep_steps`,
    `image_input`), it says:

    Args:
        vocabularies: Whose names a plain built-in vocabulary means, as `Vocabulary.builtin` takes it.
        training_vocabulary: Which classes it was trained to segment, if that matters to it: what `Vocabulary.of` reads.
        templates: The prompts that a phrase is put into.
        emits: The kind of its raw output.
        stages: The methods that `forward` calls, in the order data meets them, and what a person calls them.
    """

    vocabularies: ClassVar[str]
    templates: tuple[str, ...]
    emits: type[RawOutput]
    stages: Mapping[str, str]
    clip: Clip
    training: bool

    @property
    def config(self) -> HasClip: ...

    @property
    def training_vocabulary(self) -> str: ...

    def encode_text(self, phrases: list[str]) -> Float[Tensor, "S D"]:
        """Phrases → unit vectors, in the model's templates."""
        ...

    @staticmethod
    def is_trained(name: str) -> bool:
        """Tell whether the recipe trains a parameter."""
        ...

    def start_from_clip(self) -> None:
        """Start what is a copy of a part of CLIP, once CLIP has its weights."""
        ...

    def for_inference(self) -> "Model":
        """Leave out, for good, what only training needs; return the same model."""
        ...

    def forward(self, *inputs: Anything, **choices: Anything) -> RawOutput:
        """`forward(pixels, words)`, and `keep=K` where there are `keep_steps`: tensors in, tensors out."""
        ...

    # of every nn.Module
    def __call__(self, *inputs: Anything, **choices: Anything) -> RawOutput: ...

    def eval(self) -> "Model": ...

    def train(self, mode: bool = True) -> "Model": ...

    def to(self, *arguments: Anything, **settings: Anything) -> "Model": ...

    def requires_grad_(self, requires_grad: bool = True) -> "Model": ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Parameter]]: ...

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]: ...

    def modules(self) -> Iterator[nn.Module]: ...

    def named_modules(self) -> Iterator[tuple[str, nn.Module]]: ...

    def state_dict(self) -> dict[str, Tensor]: ...

    def load_state_dict(
        self, state_dict: Mapping[str, Tensor], strict: bool = True, assign: bool = False
    ) -> object: ...
