"""`nn.ModuleList`, with what is in it: torch's own says `Module`, of which a type checker knows no method."""

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Generic, TypeVar, overload

    Part = TypeVar("Part", bound=nn.Module)

    class ModuleListOf(nn.ModuleList, Generic[Part]):
        """A list of modules of one class."""

        def __init__(self, modules: Iterable[Part]) -> None: ...

        def __iter__(self) -> Iterator[Part]: ...

        @overload
        def __getitem__(self, idx: int) -> Part: ...

        @overload
        def __getitem__(self, idx: slice) -> "ModuleListOf[Part]": ...

        def __getitem__(self, idx: int | slice) -> "Part | ModuleListOf[Part]": ...

else:
    ModuleListOf = nn.ModuleList
