import sqlite3
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from wordmask import text
from wordmask.clip import CONTEXT_LENGTH, tokenize
from wordmask.text import TextCache, encode_phrases, encode_vocabulary
from wordmask.vocabulary import Vocabulary

PHRASES = ["sky", "a very long name for a rather small thing with many words", "car", "traffic light"]


@torch.inference_mode()
def test_cutting_to_the_longest_prompt_changes_nothing(tiny):
    """Against open_clip's own encoder on all 77 tokens, one prompt at a time."""
    ours = encode_phrases(tiny.clip, PHRASES, tiny.templates)
    for phrase, vector in zip(PHRASES, ours, strict=True):
        tokens = torch.zeros(1, CONTEXT_LENGTH, dtype=torch.long)
        ids = tokenize([tiny.templates[0].format(phrase)])[0]
        tokens[0, : len(ids)] = torch.tensor(ids)
        torch.testing.assert_close(vector, tiny.clip.encode_text(tokens, normalize=True)[0], rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_chunks_and_order_change_nothing(tiny, monkeypatch):
    whole = encode_phrases(tiny.clip, PHRASES, tiny.templates)
    monkeypatch.setattr(text, "PROMPTS_AT_ONCE", 2)
    torch.testing.assert_close(
        encode_phrases(tiny.clip, PHRASES[::-1], tiny.templates).flip(0), whole, rtol=1e-4, atol=1e-5
    )


@torch.inference_mode()
def test_several_templates_are_averaged(tiny):
    templates = ("a photo of a {}.", "There is a {} in the scene")
    single = [encode_phrases(tiny.clip, PHRASES, (template,)) for template in templates]
    torch.testing.assert_close(
        encode_phrases(tiny.clip, PHRASES, templates), F.normalize(sum(single), dim=-1), rtol=1e-4, atol=1e-5
    )


def test_tokens_are_those_of_open_clip():
    import open_clip

    theirs = open_clip.tokenize(PHRASES)
    for ids, row in zip(tokenize(PHRASES), theirs, strict=True):
        assert ids == row[: len(ids)].tolist()
        assert not row[len(ids) :].any()


def test_a_prompt_that_clip_cannot_read_is_refused(tiny):
    tokenize(["word " * 75])
    with pytest.raises(ValueError, match="78 tokens; CLIP reads 77"):
        tokenize(["word " * 76])
    with pytest.raises(ValueError, match="shorter word"):
        tiny.encode_text(["sky", "word " * 90])


def counting_encoder():
    calls = []

    def encode(phrases):
        calls.append(list(phrases))
        return F.normalize(
            torch.stack([torch.randn(8, generator=torch.Generator().manual_seed(hash(p) % 2**31)) for p in phrases]),
            dim=-1,
        )

    return encode, calls


def test_phrases_are_encoded_once(tmp_path):
    encode, calls = counting_encoder()
    first = TextCache("tower", ("{}",), tmp_path).encode(["sky", "car", "SKY"], encode)
    assert calls == [["sky", "car"]], "case does not matter to CLIP"
    again = TextCache("tower", ("{}",), tmp_path)
    torch.testing.assert_close(again.encode(["car", "sky", "sky"], encode), first[[1, 0, 2]])
    again.encode(["sky", "sea"], encode)
    assert calls[1:] == [["sea"]]


def test_another_checkpoint_or_template_is_another_vector(tmp_path):
    encode, calls = counting_encoder()
    for tower, template in (("a", "{}"), ("b", "{}"), ("a", "a {}")):
        TextCache(tower, (template,), tmp_path).encode(["sky"], encode)
    assert len(calls) == 3


def test_without_a_folder_nothing_is_written(tmp_path):
    encode, calls = counting_encoder()
    cache = TextCache("tower", ("{}",), None)
    cache.encode(["sky"], encode)
    cache.encode(["sky"], encode)
    assert len(calls) == 1


@pytest.mark.parametrize("damage", ["garbage", "truncated", "wrong bytes", "null", "text", "old table", "broken names"])
def test_a_damaged_cache_is_computed_again(tmp_path, damage):
    encode, calls = counting_encoder()
    expected = TextCache("tower", ("{}",), tmp_path).encode(["sky", "car"], encode)
    file = next((tmp_path / "text").glob("*.sqlite"))
    if damage == "garbage":
        file.write_bytes(b"not a database" * 500)
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:5000])
    elif damage == "broken names":
        file.write_bytes(file.read_bytes().replace(b"checksum", b"ch\xff\xfeksum"))
    else:
        orders = {
            "wrong bytes": "UPDATE vectors SET vector = zeroblob(32) WHERE phrase = 'sky'",
            "null": "UPDATE vectors SET vector = NULL",
            "text": "UPDATE vectors SET vector = 'sky'",
            "old table": "ALTER TABLE vectors DROP COLUMN checksum",
        }
        with sqlite3.connect(file) as database:
            database.execute(orders[damage])
    for _ in range(3):
        torch.testing.assert_close(TextCache("tower", ("{}",), tmp_path).encode(["sky", "car"], encode), expected)
    assert len(calls) <= 3, "it is whole again at the latest after one more run"


@pytest.mark.parametrize(
    "values",
    [
        [0.5] * 4,
        [1.0],
        [0.0] * 8,
        [float("nan")] * 8,
        [float("inf")] + [0.0] * 7,
        [2.0] + [0.0] * 7,
        [0.25] * 16,
        [],
    ],
)
@pytest.mark.parametrize("width", [8, None])
@pytest.mark.parametrize("phrases", [["sky"], ["sky", "car"], ["car", "sky", "sea"]])
def test_a_row_that_is_no_vector_is_computed_again(tmp_path, values, width, phrases):
    """Its checksum is right: whoever wrote it, it can't be used."""
    encode, _ = counting_encoder()
    expected = TextCache("tower", ("{}",), tmp_path).encode(["sky", "car"], encode)
    blob = np.array(values, "<f4").tobytes()
    with sqlite3.connect(next((tmp_path / "text").glob("*.sqlite"))) as database:
        database.execute("UPDATE vectors SET vector = ?, checksum = ? WHERE phrase = 'sky'", (blob, zlib.crc32(blob)))
    if width is None and len(phrases) == 1 and values in ([0.25] * 16, [0.5] * 4, [1.0]):
        return  # a unit vector, and nothing says how long one is: `Segmenter` does
    for _ in range(2):
        found = TextCache("tower", ("{}",), tmp_path, width=width).encode(phrases, encode)
        torch.testing.assert_close(found[phrases.index("sky")], expected[0], rtol=0, atol=0)
    again = TextCache("tower", ("{}",), tmp_path, width=8).encode(["sky"], lambda _: pytest.fail("it is there"))
    torch.testing.assert_close(again, expected[:1], rtol=0, atol=0)


def test_a_vector_that_is_no_number_is_refused(tmp_path):
    """And remembered nowhere."""
    cache = TextCache("tower", ("{}",), tmp_path)
    with pytest.raises(ValueError, match="vector of 'water' holds what is no number"):
        cache.encode(["sky", "water"], lambda phrases: torch.tensor([[1.0, 0.0], [float("nan"), 0.0]]))
    assert cache.vectors == {}
    encode, calls = counting_encoder()
    TextCache("tower", ("{}",), tmp_path).encode(["sky", "water"], encode)
    assert calls == [["sky", "water"]]


def test_a_flipped_bit_anywhere_is_harmless(tmp_path):
    encode, _ = counting_encoder()
    expected = TextCache("tower", ("{}",), tmp_path).encode(["sky", "car"], encode)
    file = next((tmp_path / "text").glob("*.sqlite"))
    whole = file.read_bytes()
    used = [place for place, byte in enumerate(whole) if byte]
    for place in used[:: max(1, len(used) // 60)]:
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 0x81]) + whole[place + 1 :])
        torch.testing.assert_close(TextCache("tower", ("{}",), tmp_path).encode(["sky", "car"], encode), expected)


def test_a_locked_cache_is_kept(tmp_path, monkeypatch):
    encode, calls = counting_encoder()
    TextCache("tower", ("{}",), tmp_path).encode(["sky"], encode)
    monkeypatch.setattr(text, "LOCK_SECONDS", 0.1)
    file = next((tmp_path / "text").glob("*.sqlite"))
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        TextCache("tower", ("{}",), tmp_path).encode(["sky"], encode)
        assert len(calls) == 2, "computed again"
        other.execute("ROLLBACK")
    TextCache("tower", ("{}",), tmp_path).encode(["sky"], encode)
    assert len(calls) == 2, "and there again"


def test_a_folder_that_cannot_be_written_costs_time_only(tmp_path):
    encode, calls = counting_encoder()
    (tmp_path / "text").write_text("a file where the folder should be")
    assert TextCache("tower", ("{}",), tmp_path).encode(["sky"], encode).shape == (1, 8)
    assert len(calls) == 1


def test_writers_at_the_same_time(tmp_path):
    """Threads here, processes below: every vector is right, whoever wrote it."""
    encode, _ = counting_encoder()
    words = [f"word {number}" for number in range(60)]
    expected = encode(words)

    def work(start: int) -> torch.Tensor:
        return TextCache("tower", ("{}",), tmp_path).encode(words[start:] + words[:start], encode).roll(start, 0)

    with ThreadPoolExecutor(8) as pool:
        for result in pool.map(work, range(0, 60, 5)):
            torch.testing.assert_close(result, expected)


@pytest.mark.slow
def test_processes_share_a_cache(tmp_path):
    script = (
        "import sys, torch\nfrom pathlib import Path\nfrom wordmask.text import TextCache\n"
        "cache = TextCache('tower', ('{}',), Path(sys.argv[1]))\n"
        "vectors = cache.encode([f'word {n}' for n in range(300)], lambda words: torch.tensor([[float(w.split()[1])] "
        "for w in words]))\n"
        "assert vectors.flatten().tolist() == list(range(300))\n"
    )
    processes = [
        subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stderr=subprocess.PIPE) for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    with sqlite3.connect(next((tmp_path / "text").glob("*.sqlite"))) as database:
        assert database.execute("SELECT count(*) FROM vectors").fetchone() == (300,)


def test_synonyms_first_or_mean():
    encode, calls = counting_encoder()
    vocabulary = Vocabulary.of("car, automobile, auto; sky")
    first = encode_vocabulary(vocabulary, "first", encode)
    assert calls == [["car", "sky"]]
    assert first.owner.tolist() == [0, 1]
    mean = encode_vocabulary(vocabulary, "mean", encode)
    assert mean.embeddings.shape == (2, 8)
    torch.testing.assert_close(
        mean.embeddings[0], F.normalize(encode(["car", "automobile", "auto"]).mean(dim=0), dim=0)
    )
    torch.testing.assert_close(mean.embeddings[1], encode(["sky"])[0])
