"""A request → the question it asks: read whole from a form or from json, and checked before anything waits."""

import base64
import binascii
from collections.abc import AsyncGenerator, Mapping
from typing import NamedTuple, TypeVar

from fastapi import Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from wordmask.pixels import PictureFile, read_file_header
from wordmask.serve.limits import Limits, Refused
from wordmask.serve.question import TEXT_BYTES, JsonQuestion, Question
from wordmask.vocabulary import Vocabulary, builtin_names

FORM, JSON = "multipart/form-data", "application/json"
LONGEST_NAME = 500  # characters; CLIP reads 77 tokens
# none that runs another program or writes files
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "PPM", "JPEG2000", "AVIF")
OTHER_FIELDS = 32  # of a form, beside words

Kind = TypeVar("Kind", bound=Question)


class ParsedRequest(NamedTuple):
    """A request that was understood: the question, and what it is about.

    Args:
        picture: Its header was read; it is not decoded.
        file_name: As the client calls it, or empty.
    """

    question: Question
    words: Vocabulary | str
    picture: PictureFile
    file_name: str


async def read_request(request: Request, limits: Limits) -> ParsedRequest:
    """Read a request whole, in memory.

    Raises:
        Refused: 413 too large, 415 another content type, 422 whatever else does not fit.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM:
        question, content, name = await _read_form(request, limits)
    elif kind == JSON:
        question, content, name = await _read_json(request, limits)
    else:
        raise Refused(415, f"The content type came as {kind!r}; expected {FORM} or {JSON}.")
    if len(content) > limits.upload:
        raise _too_many_bytes(limits)
    return ParsedRequest(question, _words(question, limits), open_picture(content, limits), name)


def open_picture(content: bytes, limits: Limits) -> PictureFile:
    """Open a picture's file and read its header.

    Raises:
        Refused: 413 too many pixels, 422 no picture.
    """
    try:
        picture = read_file_header(content, FORMATS)
    except ValueError as error:
        if "too large" in str(error):
            raise _too_many_pixels(limits) from None
        known, said = ", ".join(FORMATS), f"The picture's {len(content)} bytes are no picture that can be read."
        raise Refused(422, f"{said} {error} Expected one of {known}.") from None
    if picture.width * picture.height > limits.pixels:
        raise _too_many_pixels(limits)
    return picture


async def limited(request: Request, most: int, limits: Limits) -> AsyncGenerator[bytes]:
    """Yield the body piece by piece, up to `most` bytes.

    Raises:
        Refused: 413, at once where the header says so.
    """
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said[:20]) > most:
        raise _too_many_bytes(limits)
    received = 0
    async for piece in request.stream():
        received += len(piece)
        if received > most:
            raise _too_many_bytes(limits)
        yield piece


async def _read_form(request: Request, limits: Limits) -> tuple[Question, bytes, str]:
    most = limits.upload + TEXT_BYTES
    parser = MultiPartParser(
        request.headers,
        limited(request, most, limits),
        max_files=1,
        max_fields=limits.words + OTHER_FIELDS,
        max_part_size=TEXT_BYTES,
    )
    parser.spool_max_size = most + 1  # never reached: nothing is spooled to the disk
    try:
        form = await parser.parse()
    except (MultiPartException, FormParserError) as error:  # the latter comes through some versions of starlette
        raise Refused(422, f"The form cannot be read: {getattr(error, 'message', error)}") from None
    picture = form.get("picture")
    if not isinstance(picture, UploadFile):
        raise Refused(422, "The form has no file in the field 'picture'.")
    return _validated(Question, _values_of(form)), await picture.read(), picture.filename or ""


def _values_of(form: FormData) -> dict[str, str | list[str]]:
    """What a form says beside its picture: lists where the question has them, else the last value of a name."""
    values: dict[str, str | list[str]] = {}
    for name in form:
        entries = [entry for entry in form.getlist(name) if isinstance(entry, str)]  # the picture is the only file
        if name == "words":
            values[name] = entries
        elif name == "return":
            values[name] = [entry.strip() for entry in ",".join(entries).split(",")]
        elif name != "picture" and entries[-1]:  # empty where a form's field was left so
            values[name] = entries[-1]
    return values


async def _read_json(request: Request, limits: Limits) -> tuple[Question, bytes, str]:
    most = limits.upload * 4 // 3 + TEXT_BYTES
    body = b"".join([piece async for piece in limited(request, most, limits)])
    question = _validated(JsonQuestion, body)
    text = question.picture.partition(",")[2] if question.picture.startswith("data:") else question.picture
    try:
        return question, base64.b64decode("".join(text.split()), validate=True), ""
    except (binascii.Error, ValueError):  # the latter of characters beyond ASCII
        raise Refused(422, "The picture is not base64; expected a picture file so encoded, or a data URL.") from None


def _validated(kind: type[Kind], values: Mapping[str, str | list[str]] | bytes) -> Kind:
    """Check values of a form, or json, which must have the right types."""
    try:
        if isinstance(values, bytes):
            return kind.model_validate_json(values, strict=True)
        return kind.model_validate(values)
    except ValidationError as error:
        lines = [
            f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}"
            for one in error.errors(include_input=False, include_url=False)
        ]
        raise Refused(422, "; ".join(lines[:5])) from None


def _words(question: Question, limits: Limits) -> Vocabulary | str:
    """The words, or the name of a built-in vocabulary; a name is never read as a file's."""
    given = [question.words] if isinstance(question.words, str) else question.words
    if question.vocabulary is not None:
        if given:
            raise Refused(422, "Both words and a vocabulary came. Leave one out.")
        if question.vocabulary not in builtin_names():
            raise Refused(
                422, f"There is no vocabulary {question.vocabulary!r}; there are {', '.join(builtin_names())}."
            )
        check_number(Vocabulary.builtin(question.vocabulary), limits)
        return question.vocabulary
    try:
        words = Vocabulary.read(given)
    except ValueError as error:
        raise Refused(422, str(error)) from None
    check_number(words, limits)
    return words


def check_number(words: Vocabulary, limits: Limits) -> None:
    """Check how many names there are, and how long they are.

    Raises:
        Refused: 422.
    """
    names = [name for entry in words for name in entry.names]
    if len(names) > limits.words:
        raise Refused(
            422, f"{len(names)} words came, synonyms counted; the limit here is {limits.words}. Leave some out."
        )
    longest = max(names, key=len)
    if len(longest) > LONGEST_NAME:
        raise Refused(
            422, f"A word has {len(longest)} characters ({longest[:40]!r} …); expected at most {LONGEST_NAME}."
        )


def _too_many_pixels(limits: Limits) -> Refused:
    return Refused(413, f"The picture has more than {limits.pixels / 1e6:g} million pixels, the limit here. Shrink it.")


def _too_many_bytes(limits: Limits) -> Refused:
    return Refused(413, f"The picture has more than {limits.upload / 1e6:g} MB, the limit here. Shrink it.")
