"""Text without torch: what a person wrote or another program exported → one line a class, spelled in one way.

Needs the standard library alone, and nothing else of wordmask: `wordmask export` copies this file beside the graphs.
"""

import codecs
import os
import re
import unicodedata
from pathlib import Path
from typing import NamedTuple

# that of UTF-32 begins like that of UTF-16
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LINE_BREAK = re.compile(r"\r\n|[\n\r\v\f\x85\u2028\u2029]")
RARE_BREAK = re.compile(r"[\v\f\x85\u2028\u2029]")  # what some programs count as the end of a line, and others don't
# soft hyphen, zero-width space, byte order mark, direction marks and their like: nothing that is seen or spoken
INVISIBLE = re.compile("[\u00ad\u061c\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufeff]")
# Zero-width joiners mean something in Indian and Arabic scripts, and hold emoji together; beside a letter of Latin,
# Greek, Cyrillic, Chinese, Japanese or Korean, and at the edge of a word, they don't.
OF_NO_JOINER = "\u0000-\u058f\u1e00-\u1fff\u200c\u200d\u3000-\u9fff\uac00-\ud7af"
JOINERS = re.compile(f"(?<![^{OF_NO_JOINER}])[\u200c\u200d]|[\u200c\u200d](?![^{OF_NO_JOINER}])")
# Full-width and half-width forms, and Latin ligatures: CLIP's tokeniser reads "ｃａｒ" and "ﬁre" as "car" and "fire".
# It tells ½, ² and ™ from 1/2, 2 and TM, and so do we: that is why all of NFKC would be too much.
WIDTHS = re.compile("[\u3000\uff01-\uffee\ufb00-\ufb06]+")

# On lines as `_spaced` leaves them, so that none takes long on a million spaces. A comment begins a line, or stands
# after two spaces or a tab, or its # stands alone: "route #66" has none.
SPACES = re.compile(r"\s+")
COMMENT = re.compile(r"(?:^\s*|\s{2,}|\t)#.*$|\s#(?:\s.*)?$")
PRINTED = re.compile(r"(?P<number>\d{1,9})\s+(?P<kind>stuff|thing)\s+(?P<name>\S.*)")
NUMBER_FIRST = re.compile(r"(?P<number>\d{1,9})(?:\s*[=)\t]\s*|\s*:(?!\d)\s*|\.\s+|\s[-–]\s+)(?P<name>\S.*)")
NUMBER_AND_SPACE = re.compile(r"(?P<number>\d{1,9})\s+(?P<name>\S.*)")
NUMBER_LAST = re.compile(r"(?P<name>\S.*?)\s*[:=\t]\s*(?P<number>\d{1,9})")
SPACE_AND_NUMBER = re.compile(r"(?P<name>\S.*?)\s+(?P<number>\d{1,9})")
NUMBER_AND_COMMA = re.compile(r"\d+\s*[,;]\s*\S.*|\S.*?\s*[,;]\s*\d+")
BULLET = re.compile(r"[-*•+–]\s+(?P<name>\S.*)")
# what other programs call the columns of their tables
NUMBERS_COLUMNS = {
    "id",
    "idx",
    "index",
    "number",
    "no",
    "value",
    "label",
    "class",
    "class_id",
    "label_id",
    "category_id",
}
NAMES_COLUMNS = {"name", "names", "class_name", "class_names", "classname", "classes", "label_name", "category"}
NAMES_COLUMNS |= {"categories", "category_name"}
EITHER_COLUMN = {"class", "label"}
COLUMN_BREAK = re.compile(r"\s*[,;\t]\s*")
ADVICE = 'write the names alone, one a line; if a number belongs to its name, write json: ["7 segment display", …]'


class Line(NamedTuple):
    """A line of a text, counted from 1."""

    number: int
    text: str


def spelled(text: str) -> str:
    """Spell a text in the one way of all that look and read alike: composed accents, ordinary widths, nothing
    invisible."""
    if text.isascii():
        return text
    text = JOINERS.sub("", INVISIBLE.sub("", text))
    return unicodedata.normalize("NFC", WIDTHS.sub(lambda wide: unicodedata.normalize("NFKC", wide[0]), text))


def read_text(path: Path, name: str) -> str:
    """Read a text file: UTF-8, or what its byte order mark says.

    Args:
        name: What errors call it: "The words file 'words.txt'".

    Raises:
        ValueError: Another encoding.
        OSError: It can't be read.
    """
    content = Path(os.path.expanduser(path)).read_bytes()
    encoding = next((encoding for mark, encoding in BYTE_ORDER_MARKS if content.startswith(mark)), "utf-8")
    if encoding.startswith("utf-8") and b"\0" in content:
        raise ValueError(
            f"{name} cannot be read: it holds zero bytes, as UTF-16 without a byte order mark does, or "
            "what is no text. Expected UTF-8 text; save it so."
        )
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if not encoding.startswith("utf-8"):
            raise ValueError(
                f"{name} cannot be read: it begins as {encoding.upper()}, and breaks off or goes on otherwise "
                f"({error.reason}). Expected UTF-8 text; save it so."
            ) from None
        before = content[: error.start].decode(encoding)
        number = len(LINE_BREAK.split(before))
        line = re.split(rb"[\r\n]", content[error.start - len(LINE_BREAK.split(before)[-1].encode()) :])[0]
        raise ValueError(
            f"{name} cannot be read: its line {number} is no UTF-8 (byte 0x{content[error.start]:02x}). As Latin-1 it "
            f"says {line.decode('latin-1')!r}. Expected UTF-8 text; save it so."
        ) from None


def read_lines(text: str, name: str, *, counted: bool = False) -> list[str]:
    """Take the lines of a text that has one class a line: without comments, blank lines, and the numbers or bullets
    that another program put before the names.

    Args:
        name: What errors call it: "The words file 'words.txt'".
        counted: The place of a line is the value of its class in label maps, so that nothing may shift it.

    Raises:
        ValueError: Numbers that are not 0, 1, 2 … in order, columns, the head of a table; blank lines or `;` among
            lines that are counted. The line is named.
    """
    numbered = [Line(number, spelled(line)) for number, line in enumerate(LINE_BREAK.split(text), 1)]
    uncommented = [Line(line.number, COMMENT.sub("", _spaced(line.text)).strip()) for line in numbered]
    lines = [line for line in uncommented if line.text]
    if counted:
        comments = {line.number for line in numbered if line.text.strip().startswith("#")}
        _check_counted([line for line in uncommented if line.number not in comments], name)
        if found := RARE_BREAK.search(text):
            raise ValueError(
                f"{name} has a line break that is none to every program ({found[0]!r}, in line "
                f"{len(LINE_BREAK.split(text[: found.start()]))}). Values in labels count the lines: write it anew."
            )
    if len(lines) > 1 and lines[0].text.endswith(":") and lines[0].text[:-1].strip().lower() in NAMES_COLUMNS:
        lines = lines[1:]  # names: as in YAML
    if not lines:
        return []
    lines = _without_head(_without_bullets(lines, name), name)
    for line in lines:
        if "\t" in line.text:
            raise ValueError(f"{name} has columns in line {line.number}, parted by tabs ({line.text!r}); {ADVICE}.")
        if counted and ";" in line.text.rstrip("; "):
            raise ValueError(
                f"{name} has several classes in line {line.number} ({line.text!r}). Values in labels count the lines "
                "from 0: write one class a line, and a comma between synonyms."
            )
    return [line.text for line in lines]


def without_numbers(entries: list[str], name: str) -> list[str]:
    """Take 0, 1, 2 … off the entries of a list, where each has its number and a colon or the like: ["0: car", …].

    Raises:
        ValueError: Other numbers, or not in order.
    """
    lines = [Line(number, entry.strip()) for number, entry in enumerate(entries, 1)]
    if len(lines) < 2 or not all(NUMBER_FIRST.fullmatch(line.text) for line in lines):
        return entries
    return [line.text for line in _numbers_taken_off(lines, NUMBER_FIRST, name, "entry")]


def _check_counted(lines: list[Line], name: str) -> None:
    last = max((line.number for line in lines if line.text), default=0)
    for line in lines:
        if not line.text and line.number < last:
            raise ValueError(
                f"{name} has a blank line, line {line.number}. Values in labels count the lines from 0, so that it "
                "would be a class without a name. Name it; or take it out, if the values count the names alone."
            )


def _without_bullets(lines: list[Line], name: str) -> list[Line]:
    """- car → car, as Markdown and YAML write lists."""
    bullets = [BULLET.fullmatch(line.text) for line in lines]
    if not any(bullets) or lines[0].text.endswith(":"):
        return lines
    for line, bullet in zip(lines, bullets, strict=True):
        if not bullet:
            raise ValueError(
                f"{name} has a list with bullets, and in line {line.number} there is none ({line.text!r}); {ADVICE}."
            )
    return [Line(line.number, bullet["name"]) for line, bullet in zip(lines, bullets, strict=True) if bullet]


def _without_head(lines: list[Line], name: str) -> list[Line]:
    """Read a table of numbers and names by its first line, or lines without one."""
    first = lines[0]
    separator = COLUMN_BREAK.search(first.text) or re.search(r"\s", first.text)
    columns = re.split(re.escape(separator[0]), first.text.lower()) if separator else [first.text.lower()]
    columns = [column.strip() for column in columns]
    numbers = NUMBERS_COLUMNS.intersection(columns)
    names = NAMES_COLUMNS.intersection(columns) or (numbers - EITHER_COLUMN and EITHER_COLUMN.intersection(columns))
    if len(lines) > 1 and separator and len(columns) == 2 and numbers and names:
        number_first = columns[0] in NUMBERS_COLUMNS and columns[1] in NAMES_COLUMNS | EITHER_COLUMN
        parts = (r"(?P<number>\d{1,9})", r"(?P<name>\S.*)")
        between = rf"\s*{re.escape(separator[0].strip()) or SPACES.pattern}\s*"
        pattern = between.join(parts if number_first else parts[::-1])
        return _numbers_taken_off(lines[1:], re.compile(pattern), name)
    if first.text.endswith(":") or (len(lines) > 1 and names and (len(columns) == 1 or numbers)):
        raise ValueError(
            f"{name} begins with line {first.number}, {first.text!r}, the head of a table or list; {ADVICE}."
        )
    return _without_numbers(lines, name)


def _without_numbers(lines: list[Line], name: str) -> list[Line]:
    """0: car → car, where every line has its number in order; refuse what is numbered in another way."""

    def share(pattern: re.Pattern[str]) -> float:
        return sum(bool(pattern.fullmatch(line.text)) for line in lines) / len(lines)

    several = len(lines) > 1
    if share(PRINTED) == 1:
        return _numbers_taken_off(lines, PRINTED, name)
    if found := [match for line in lines if (match := NUMBER_FIRST.fullmatch(line.text))]:
        ordinal = len(found) == 1 and several and re.match(r"\d+\.", found[0][0])  # 1. FC Köln
        return lines if ordinal else _numbers_taken_off(lines, NUMBER_FIRST, name)
    if _named_apart(lines, NUMBER_AND_SPACE) and (several or lines[0].text.startswith("0 ")):
        return _numbers_taken_off(lines, NUMBER_AND_SPACE, name)
    if _named_apart(lines, NUMBER_LAST) and (several or lines[0].text.endswith("0")):
        return _numbers_taken_off(lines, NUMBER_LAST, name)
    if several and share(NUMBER_AND_COMMA) == 1:
        raise ValueError(
            f"{name} has a number and a comma in every line, such as {lines[0].text!r} in line {lines[0].number}. A "
            f"comma parts synonyms, so that the number would be a name; {ADVICE}."
        )
    if several and _named_apart(lines, SPACE_AND_NUMBER) and _in_order(lines, SPACE_AND_NUMBER):
        raise ValueError(
            f"{name} has a number at the end of every line, from 0 on, such as {lines[0].text!r} in line "
            f"{lines[0].number}: it may be a label or belong to the name; {ADVICE}."
        )
    return lines


def _spaced(line: str) -> str:
    """Shorten what separates: to one space, to two, or to a tab, if there is one."""
    return SPACES.sub(lambda found: "\t" if "\t" in found[0] else found[0][:2], line)


def _named_apart(lines: list[Line], pattern: re.Pattern[str]) -> bool:
    """Tell whether every line has a number, and a name that is its own without it: not 1 euro, 2 euro, 5 euro."""
    found = [pattern.fullmatch(line.text) for line in lines]
    names = {match["name"].lower() for match in found if match}
    return len(names) == len(lines)


def _in_order(lines: list[Line], pattern: re.Pattern[str]) -> bool:
    found = [pattern.fullmatch(line.text) for line in lines]
    return [int(match["number"]) for match in found if match] == list(range(len(lines)))


def _numbers_taken_off(lines: list[Line], pattern: re.Pattern[str], name: str, unit: str = "line") -> list[Line]:
    names, advice = [], ADVICE if unit == "line" else "give the names alone"
    for expected, line in enumerate(lines):
        found = pattern.fullmatch(line.text)
        if not found or int(found["number"]) != expected:
            raise ValueError(
                f"{name} has numbers, and in {unit} {line.number} there is {line.text!r} where {expected} was "
                f"expected: labels count from 0 in order. Number them so; or {advice}."
            )
        kind = f" [{found['kind']}]" if pattern is PRINTED else ""
        names.append(Line(line.number, found["name"] + kind))
    return names
