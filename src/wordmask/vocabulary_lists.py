"""What `wordmask vocabularies` says of the lists that come with the package."""

from collections.abc import Iterator

from wordmask.vocabulary import Vocabulary, builtin_names
from wordmask.words import write_lines


def describe_vocabularies() -> Iterator[str]:
    """A line for each list: its full name, how many classes, its licence, and where it is from."""
    for name in builtin_names():
        if "/" in name:
            listed = Vocabulary.builtin(name)
            yield f"{name:30} {len(listed):5} classes   {listed.licence:10}  {listed.source}"


def describe_classes(name: str, *, plainly: bool) -> Iterator[str]:
    """A line for each class of a list: its label, its kind and its names.

    Args:
        plainly: As lines of a words file, which have no labels.

    Raises:
        ValueError: There is no such list; the message has the near matches.
    """
    if plainly:
        yield from write_lines(Vocabulary.builtin(name))
        return
    for label, entry in enumerate(Vocabulary.builtin(name)):
        yield f"{label:5}  {'thing' if entry.thing else 'stuff'}  {', '.join(entry.names)}"
