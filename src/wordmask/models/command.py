"""`wordmask convert`: a reference checkpoint → our format, and what became of its weights."""

from pathlib import Path

from wordmask import weights
from wordmask.models import kind_of
from wordmask.models.convert import reference_names, unwrapped
from wordmask.models.load import convert
from wordmask.terminal import say
from wordmask.writing import check_writable, expanded

NAMES_SHOWN = 2  # of the weights that were dropped for one reason


def convert_file(source: Path, target: Path, preset: str | None, *, overwrite: bool) -> None:
    """Convert a checkpoint, and say which preset it is of and what was dropped.

    Args:
        preset: Found by the shapes of the weights if None.
        overwrite: Whether a file at `target` is replaced.

    Raises:
        ValueError: `source` is no reference checkpoint, or not of the preset; `target` exists, doesn't end in
            .safetensors, or can't be written.
    """
    target = expanded(target)
    if target.suffix != ".safetensors":
        raise ValueError(f"OUT came as {str(target)!r}; expected a name that ends in .safetensors.")
    if target.exists() and not overwrite:
        raise ValueError(f"{str(target)!r} exists. Choose another name, or add --overwrite.")
    check_writable(target.parent)
    checkpoint = weights.read(source)
    found, dropped = convert(checkpoint, target, preset)
    used = f"every weight used but {len(dropped)} dropped on purpose:" if dropped else "every weight used."
    say(f"{source} → {target}: {found}, {used}")
    if checkpoint.inside:
        say(f"  the weights are those under {' → '.join(map(repr, checkpoint.inside))}")
    prefix = unwrapped(checkpoint.state, reference_names(found)).prefix
    if prefix:
        say(f"  {prefix!r} before their names was taken off")
    kind = kind_of(found)
    for reason, names in kind.known(kind.reference, "reference").drop_reasons(dropped).items():
        more = ", …" if len(names) > NAMES_SHOWN else ""
        say(f"  {len(names):4}  {', '.join(names[:NAMES_SHOWN])}{more}: {reason}")
