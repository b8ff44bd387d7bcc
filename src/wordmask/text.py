"""Words → vectors: templates, phrases, and a cache in memory and on disk."""

import sqlite3
import zlib
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from wordmask import fingerprints
from wordmask.clip import Clip, encode_tokens, tokenize
from wordmask.surroundings import as_if_alone
from wordmask.vocabulary import Synonyms, Vocabulary
from wordmask.words import same_phrase

Encoder = Callable[[list[str]], Float[Tensor, "S D"]]
Result = TypeVar("Result")

PROMPTS_AT_ONCE = 256  # bounds memory: an activation of 256 prompts with 77 tokens, 768 wide, takes 61 MB
CACHE_FORMAT = "float32"  # changes when vectors that were kept before should no longer be used
APART_FROM_UNIT = 1e-4  # of a vector's length, at most; rounding in float32 makes 1e-6
LOCK_SECONDS = 3.0  # how long one process waits while another writes, which takes milliseconds
ANOTHER_TIME = {  # what SQLite says of a file that is whole but can't be used now
    *(sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN),
    *(sqlite3.SQLITE_PERM, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT),
}
CREATE_TABLE = (
    "CREATE TABLE IF NOT EXISTS vectors (template TEXT, phrase TEXT, vector BLOB, checksum INTEGER, PRIMARY KEY "
    "(template, phrase)) WITHOUT ROWID"
)


class Words(NamedTuple):
    """What a model knows of the words: one vector per phrase, the class that owns it, and which classes its training
    saw."""

    embeddings: Float[Tensor, "S D"]
    owner: Int[Tensor, " S"]
    seen: Bool[Tensor, " T"]


def encode_phrases(clip: Clip, phrases: list[str], templates: tuple[str, ...]) -> Float[Tensor, "S D"]:
    """Encode phrases by a CLIP text tower: unit vectors, the mean over the templates.

    Prompts go through in order of length, each chunk cut to its longest.

    Raises:
        ValueError: A prompt has more than CLIP's 77 tokens.
    """
    prompts = tokenize([template.format(phrase) for phrase in phrases for template in templates])
    order = sorted(range(len(prompts)), key=lambda number: len(prompts[number]))
    chunks, device = [], next(clip.parameters()).device
    for start in range(0, len(order), PROMPTS_AT_ONCE):
        rows = [torch.tensor(prompts[number]) for number in order[start : start + PROMPTS_AT_ONCE]]
        tokens = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        chunks.append(F.normalize(encode_tokens(clip, tokens), dim=-1))
    vectors = torch.cat(chunks)[torch.tensor(order).argsort()]  # (S·P, D)
    return F.normalize(vectors.unflatten(0, (len(phrases), len(templates))).mean(dim=1), dim=-1)


def encode_vocabulary(
    vocabulary: Vocabulary, synonyms: Synonyms, encode: Encoder, *, training_names: frozenset[str] = frozenset()
) -> Words:
    """Give every class its unit vectors: its first name's, the mean over all its names, or one for each name.

    Args:
        synonyms: `first` is what ERR-Seg's published numbers use, `each` what EOV-Seg's do.
        encode: Phrases → unit vectors (S, D), usually `TextCache.encode`.
        training_names: What the model was trained to segment, as `same_phrase` writes it. A class that has one of these
            names is seen.

    Raises:
        ValueError: A phrase is too long for CLIP.
    """
    seen = torch.tensor([entry.is_among(training_names) for entry in vocabulary])
    names = [entry.names[:1] if synonyms == "first" else entry.names for entry in vocabulary]
    phrases = encode([name for group in names for name in group])  # (S, D)
    owner = torch.repeat_interleave(torch.arange(len(names)), torch.tensor([len(group) for group in names]))
    owner = owner.to(phrases.device)
    if synonyms == "mean" and len(phrases) > len(names):
        sums = phrases.new_zeros(len(names), phrases.shape[1]).index_add(0, owner, phrases)
        phrases, owner = F.normalize(sums, dim=-1), torch.arange(len(names), device=phrases.device)
    return Words(phrases, owner, seen.to(owner.device))


def encoding_code() -> str:
    """The fingerprint of what turns phrases into vectors."""
    sources = [fingerprints.of_file(fingerprints.HOME / name) for name in ("clip.py", "text.py", "words.py")]
    return fingerprints.of_values(sources, fingerprints.versions())


class TextCache:
    """Remembers the vectors of phrases, in memory and in one SQLite file per checkpoint.

    A file that is locked, unreadable or damaged costs time, never an error: what is missing is computed again, and so
    is what can't be a vector of this model, whatever its checksum says.

    Args:
        checkpoint: Identifies the text tower: the same words mean another vector with other weights.
        templates: The prompts that a phrase is put into; part of the key.
        folder: Where the file lies; None keeps everything in memory only.
        width: D, numbers in a vector; None: as many as the first one has that is computed.
    """

    def __init__(self, checkpoint: str, templates: tuple[str, ...], folder: Path | None, *, width: int | None = None):
        self.file: Path | None = None if folder is None else Path(folder) / "text" / f"{checkpoint}.sqlite"
        # vectors that other code computed, or another version of a library, are others
        self.template: str = fingerprints.of_values(templates, CACHE_FORMAT, encoding_code())
        self.width = width
        self.vectors: dict[str, Tensor] = {}

    def encode(self, phrases: list[str], encode: Encoder) -> Float[Tensor, "S D"]:
        """Return the vectors of `phrases`, computing those never seen; case and spacing don't matter.

        Raises:
            ValueError: A vector comes out as something else than numbers; it is not remembered.
        """
        keys = [same_phrase(phrase) for phrase in phrases]
        wanted = [key for key in dict.fromkeys(keys) if key not in self.vectors]
        if wanted:
            found = self._read(wanted)
            self._compute([key for key in wanted if key not in found], encode)
            fitting = {key: vector for key, vector in found.items() if self._fits(vector, found)}
            self.vectors.update(fitting)
            self._compute([key for key in found if key not in fitting], encode)
        return torch.stack([self.vectors[key] for key in keys])

    @as_if_alone()
    @torch.no_grad()
    def _compute(self, phrases: list[str], encode: Encoder) -> None:
        """Compute vectors and remember them; on the disk only what is in full precision."""
        if not phrases:
            return
        vectors = encode(phrases)
        bad = [phrase for phrase, vector in zip(phrases, vectors, strict=True) if not vector.isfinite().all()]
        if bad:
            raise ValueError(
                f"The model's vector of {bad[0]!r} holds what is no number. Its text tower is damaged: fetch or "
                "convert the checkpoint again."
            )
        self.width = vectors.shape[1]
        fresh = dict(zip(phrases, vectors.float().cpu(), strict=True))
        self.vectors.update(fresh)
        if vectors.dtype == torch.float32:
            self._write(fresh)

    def _fits(self, vector: Tensor, others: dict[str, Tensor]) -> bool:
        """Tell whether a vector that was read has the right length; where that isn't known, all must agree."""
        if self.width is None:
            return len({len(other) for other in others.values()}) == 1
        return len(vector) == self.width

    def _read(self, keys: list[str]) -> dict[str, Tensor]:
        query = "SELECT vector, checksum FROM vectors WHERE template = ? AND phrase = ?"

        def read(database: sqlite3.Connection) -> dict[str, Tensor]:
            found = {}
            for key in keys:
                blob, checksum = database.execute(query, (self.template, key)).fetchone() or (None, None)
                if (
                    isinstance(blob, bytes)
                    and zlib.crc32(blob) == checksum
                    and (vector := unit_vector(blob)) is not None
                ):
                    found[key] = vector
            return found

        return self._with_file(read) or {}

    def _write(self, vectors: dict[str, Tensor]) -> None:
        blobs = {key: vector.numpy().astype("<f4").tobytes() for key, vector in vectors.items()}
        rows = [(self.template, key, blob, zlib.crc32(blob)) for key, blob in blobs.items()]
        self._with_file(
            lambda database: database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
        )

    def _with_file(self, action: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """Run `action` on the open file; return None if the file can't be used now. A damaged file is removed."""
        if self.file is None:
            return None
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.file, timeout=LOCK_SECONDS)) as database, database:
                database.execute(CREATE_TABLE)
                return action(database)
        except OSError:
            return None
        except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter from a damaged schema
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF not in ANOTHER_TIME:
                with suppress(OSError):
                    self.file.unlink()
            return None


def unit_vector(blob: bytes) -> Float[Tensor, " D"] | None:
    """Read a vector from the cache; None if it is none: of another size of numbers, not finite, or not of length 1."""
    if not blob or len(blob) % 4:
        return None
    values = np.frombuffer(blob, dtype="<f4").copy()
    with np.errstate(all="ignore"):
        length = np.linalg.norm(values.astype(np.float64))
    return torch.from_numpy(values) if abs(length - 1) <= APART_FROM_UNIT else None
