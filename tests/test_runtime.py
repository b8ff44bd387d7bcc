"""The runtime without graphs: it reads pictures and words as the library does, needs no torch, and ends with a message.

What it finds by real graphs is in test_export.py.
"""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("tokenizers")

from conftest import colourful, filled
from exporting import FAMILIES, OTHER_WORDS, agree, exported_without_graphs, let_models_stand_in
from wordmask import export, runtime
from wordmask.clip import token_tables, tokenize
from wordmask.image import prepare, read_picture
from wordmask.segmenter import Segmenter
from wordmask.vocabulary import Vocabulary, builtin_names, stuff_words
from wordmask.words import WordList

RGB = colourful(6, 8)
WITHOUT_TORCH = "import sys; sys.modules['torch'] = sys.modules['wordmask'] = None"
READ_ALL = f"""
{WITHOUT_TORCH}
import pickle
from pathlib import Path
from runtime import Runtime
from wordmask_runtime.pixels import read_rgb
from wordmask_runtime.words import read_words

def attempt(read, *given):
    try:
        return read(*given)
    except ValueError as error:
        return str(error)

asked = pickle.loads(Path("asked").read_bytes())
pictures = [attempt(read_rgb, picture) for picture in asked["pictures"]]
found = [attempt(read_words, words, asked["stuff"]) for words in asked["words"]]
plain = [words if isinstance(words, str) else [(c.names, c.thing, c.dataset_id) for c in words] for words in found]
Path("found").write_bytes(pickle.dumps((pictures, plain)))
"""


def plain(words: WordList) -> list[tuple]:
    """Classes as values that any process can hold."""
    return [(entry.names, entry.thing, entry.dataset_id) for entry in words]


def attempt(read, *given):
    """What is read, or what the error says."""
    try:
        return read(*given)
    except ValueError as error:
        return str(error)


@pytest.fixture(scope="module", params=FAMILIES)
def segmenter(request):
    return Segmenter(filled(f"{request.param}-untrained"))


@pytest.fixture
def segment(segmenter, tmp_path, monkeypatch) -> runtime.Runtime:
    """A runtime of a folder, in which models stand in for graphs."""
    let_models_stand_in(segmenter, monkeypatch)
    return runtime.Runtime(exported_without_graphs(segmenter, tmp_path / "exported"))


@pytest.fixture
def on_shell(tmp_path, monkeypatch, capsys):
    """Run `runtime.py …` in this process, in a folder with a picture; yield (exit status, output, errors)."""
    segmenter = Segmenter(filled("eov-seg-untrained"))
    let_models_stand_in(segmenter, monkeypatch)
    folder = exported_without_graphs(segmenter, tmp_path / "exported")
    Image.fromarray(colourful(40, 60)).save(tmp_path / "a.png")
    (tmp_path / "words.txt").write_text("road\ncar, automobile\n")
    monkeypatch.chdir(tmp_path)

    def call(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["runtime.py", *arguments])
        status = 0
        try:
            runtime.main(folder)
        except SystemExit as stop:
            status = stop.code or 0
        return (status, *capsys.readouterr())

    return call


# Reading --------------------------------------------------------------------------------------------------------------


def in_every_mode() -> list[Image.Image]:
    """Pictures as objects, in every mode that Pillow has."""
    base, faint = Image.fromarray(RGB), Image.fromarray(np.dstack([RGB, RGB[..., 0]]))
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1365
    palette = base.convert("P")
    clear = palette.copy()
    clear.info["transparency"] = palette.getpixel((2, 3))
    return [
        *(base.convert(mode) for mode in ("1", "L", "RGB", "RGBX", "CMYK", "YCbCr", "HSV")),
        *(faint.convert(mode) for mode in ("LA", "RGBA", "RGBa")),
        faint.convert("LA").convert("La"),
        faint.convert("LA").convert("PA"),
        *(palette, clear),
        Image.frombytes("LAB", (8, 6), RGB.tobytes()),
        Image.frombytes("I;16", (8, 6), values.astype("<u2").tobytes()),
        Image.frombytes("I;16B", (8, 6), values.astype(">u2").tobytes()),
        *(Image.fromarray(values.astype(np.int32) * factor) for factor in (1, 2, -1)),
        *(Image.fromarray((values / divisor).astype(np.float32)) for divisor in (65535, 255)),
        Image.new("RGB", (0, 5)),
    ]


def as_arrays() -> list[np.ndarray]:
    """Arrays of every type and shape."""
    values = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1365
    return [
        *(RGB, RGB[..., 0], RGB[..., :1], RGB[..., :2], RGB[None], RGB[:0], np.dstack([RGB, RGB[..., 0]])),
        *(values, values.astype(">u2"), values.astype(np.int32), values > 30_000),
        *((RGB / 255).astype(kind) for kind in (np.float16, np.float32, np.float64, ">f4")),
        *(RGB.astype(np.float32), np.full((3, 4), np.nan), np.asfortranarray(RGB), RGB[::-1, ::2]),
    ]


def in_files(folder: Path) -> list[object]:
    """Files in every format and orientation, damaged ones among them, as names, paths and bytes."""
    base = Image.fromarray(colourful(24, 40))
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        base.save(folder / f"turned {orientation}.jpg", exif=exif)
        base.save(folder / f"turned {orientation}.png", exif=exif)
    values = np.arange(960, dtype=np.uint16).reshape(24, 40) * 68
    Image.fromarray(values).save(folder / "deep.png")
    Image.frombytes("I;16B", (40, 24), values.astype(">u2").tobytes()).save(folder / "deep.tif")
    Image.fromarray((values / 65535).astype(np.float32)).save(folder / "float.tif")
    base.convert("CMYK").save(folder / "print.jpg")
    Image.frombytes("LAB", (8, 6), RGB.tobytes()).save(folder / "lab.tif")
    base.convert("P").save(folder / "palette.png", transparency=3)
    base.convert("P").save(folder / "film.gif", save_all=True, append_images=[base.rotate(90)], transparency=3)
    base.save(folder / "a.webp", lossless=True)
    base.convert("1").save(folder / "bits.png")
    (folder / "short.png").write_bytes((folder / "deep.png").read_bytes()[:300])
    (folder / "notes.png").write_text("milk, bread")
    (folder / "empty.png").touch()
    (folder / "inside.png").mkdir()
    names = sorted(path.name for path in folder.iterdir())
    return [
        *names,
        *(Path(name) for name in names),
        *((folder / name).read_bytes() for name in names if (folder / name).is_file()),
        *("missing.png", "~nobody/a.png", "x" * 300 + ".png", "", " ", "a\0b", 17, None),
    ]


def spellings(folder: Path) -> list[object]:
    """Words as people write them, sense and nonsense."""
    lines = "# mine\nroad  # asphalt\n\ncar, automobile,\nsky [thing]\n"
    (folder / "words.txt").write_text(lines, encoding="utf-8-sig")
    classes = [{"names": ["a", "b"], "thing": False, "dataset_id": 7}, {"names": ["wall"]}]
    (folder / "words.json").write_text(json.dumps({"classes": classes}))
    (folder / "list.JSON").write_text(json.dumps(["road", "car, automobile"]))
    (folder / "twice.json").write_text(json.dumps({"classes": [{"names": ["a"]}, {"names": ["A"]}]}))
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    (folder / "none.txt").write_text("# nothing\n")
    (folder / "numbered.txt").write_text("1: road\n2: car\n")
    (folder / "wide.txt").write_text("café\ncar\n", encoding="utf-16")
    (folder / "printed.txt").write_text("    0  stuff  sky\n    1  thing  car, auto\n")
    (folder / "comments.txt").write_text("route #66 sign\nsky # blue\n")
    (folder / "shared.txt").write_text("# some classes share a name\nrug, mat\nmat [thing]\n")
    (folder / "number.json").write_text("7")
    return [
        *("hedge", "road; car", "road;car;", " road ; car, automobile , auto;", "sky [thing]; car [Stuff],", "WALL"),
        *(
            "road\ncar\n\n# mine\nsky",
            "0: road\n1: car",
            ["0: road", "1: car"],
            "1: a\n2: b",
            "purple car, hedge",
            "a . b",
        ),
        *(
            {"a"},
            frozenset("a"),
            "names.csv",
            '["a"]',
            "ｃａｒ；ｂｕｓ",
            ["café", "cafe\u0301"],
            ["c\u200bar", "ca\u00adr"],
            "½; 1/2",
        ),
        *("numbered.txt", "wide.txt", "printed.txt", "comments.txt", "shared.txt"),
        *(["hedge"], ["road; car", "sky"], ("car,automobile", " traffic   light "), ["red car", "semi-detached"]),
        *("covid-19", ["ade20k-150"], {"road": 1, "car": 2}, "naïve ﬁre; 日本語"),
        *("words.txt", Path("words.txt"), "words.json", "list.JSON", "twice.json", "latin.txt", "none.txt"),
        *("number.json", "missing.txt", Path("exported"), Path("missing"), "~nobody/a.txt"),
        *([], [""], "", "  ", ";", "road;;sky", ["car,,auto"], "a [thing], b", "ball [stuf]", "ball [thing] [stuff]"),
        *(None, 3, [3], [None], b"car", ["caf\udce9"], ["car", "Car"], ["car, car"], ["car, auto", "auto"], "a; a "),
        [f"word {number}" for number in range(65_536)],
    ]


def test_the_copies_read_pictures_and_words_as_the_library(tmp_path, monkeypatch):
    """In a process of its own, with neither torch nor wordmask."""
    monkeypatch.chdir(tmp_path)
    pictures, words = [*in_files(tmp_path), *in_every_mode(), *as_arrays()], spellings(tmp_path)
    export.write_runtime(tmp_path)
    asked = {"pictures": pictures, "words": words, "stuff": stuff_words()}
    (tmp_path / "asked").write_bytes(pickle.dumps(asked))
    subprocess.run([sys.executable, "-c", READ_ALL], check=True, timeout=120)
    read, found = pickle.loads((tmp_path / "found").read_bytes())
    assert sum(isinstance(picture, np.ndarray) for picture in read) > 80
    assert sum(isinstance(entry, list) for entry in found) > 15
    for picture, theirs in zip(pictures, read, strict=True):
        ours = attempt(read_picture, picture)
        if isinstance(ours, str):
            assert theirs == ours.replace(", an array or a tensor", " or an array")
        else:
            assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape)
            assert theirs.tobytes() == ours.tobytes(), picture
    for entry, theirs in zip(words, found, strict=True):
        ours = attempt(Vocabulary.read, entry)
        assert theirs == (ours if isinstance(ours, str) else plain(ours)), entry


def test_every_name_of_a_built_in_vocabulary_is_refused(segment):
    """To the library it means many words; as one word it would mislead."""
    for name in (*builtin_names(), " ade20k-150 ", "ade20k-151", "ADE20K-150"):
        with pytest.raises(ValueError, match="only wordmask has"):
            segment(RGB, name)
    assert segment.read_words(["ade20k-150"]).names == ["ade20k-150"]
    assert segment.read_words(Vocabulary.of("ade20k-150")).names == Vocabulary.of("ade20k-150").names


@pytest.mark.parametrize("size", [(20, 30), (30, 20), (31, 31), (1, 90), (400, 300)])
def test_pixels_are_prepared_as_for_pytorch(segment, segmenter, size):
    picture = colourful(*size)
    ours, sizes = prepare(picture, segmenter.model.image_input)
    theirs, frame = segment.prepare(picture)
    np.testing.assert_allclose(theirs[0], ours.numpy(), atol=1e-5 if segmenter.model.image_input.square else 0)
    assert (frame.original, frame.resized, frame.padded) == (sizes.original, sizes.resized, sizes.padded)


@pytest.mark.parametrize("size", [(48, 64), pytest.param((70, 33), marks=pytest.mark.slow)])
def test_the_runtime_reads_as_the_segmenter(segment, segmenter, size):
    """Everything but the graphs: the model itself stands in for them."""
    picture = Image.fromarray(colourful(*size))
    for words in (["sky"], ["road", "car, automobile", "sky [thing]"], OTHER_WORDS[:40]):
        for task in segment.about.tasks:
            agree(segment(picture, words, task=task), segmenter(picture, words, task=task))


@pytest.mark.parametrize("sizes", [(7, 19), (19, 7), (1, 5), (5, 1), (6, 6)])
def test_resizing_is_torchs(sizes):
    maps = np.random.default_rng(0).normal(size=(2, sizes[0], sizes[0] + 2)).astype(np.float32)
    ours = runtime.resize(runtime.resize(maps, sizes[1], 1), sizes[1] + 3, 2)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[None], size=(sizes[1], sizes[1] + 3), mode="bilinear", align_corners=False
    )
    assert np.allclose(ours, theirs[0].numpy(), atol=1e-5)


def test_what_the_runtime_took_otherwise(segment, segmenter, tmp_path):
    """Deep grey was white from 256 of 65535 on, a string was taken letter by letter, and `;` did not end a class."""
    grey = colourful(48, 64).mean(axis=2) / 255
    Image.fromarray((grey * 65535).astype(np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "words.txt").write_text("road  # asphalt\ncar, automobile\n")
    for words, names in (
        ("hedge", ["hedge"]),
        ("road; car", ["road", "car"]),
        (["road; car"], ["road", "car"]),
        (tmp_path / "words.txt", ["road", "car"]),
        (str(tmp_path / "words.txt"), ["road", "car"]),
    ):
        assert segment.read_words(words).names == names
        agree(segment(tmp_path / "deep.png", words), segmenter(tmp_path / "deep.png", words))
    with pytest.raises(ValueError, match="'car' is given twice: as word 1 and as word 2"):
        segment(RGB, ["Car", "car"])


# Words ----------------------------------------------------------------------------------------------------------------

TEXTS = [
    *(
        "a photo of a red car.",
        "don't",
        "it's  the\tcat’s",
        "CAFÉ au lait",
        "naïve ﬁre",
        "3 dogs 42",
        "semi-detached (old) house!!",
        "&amp;amp; &lt;b&gt;",
    ),
    *("日本語の猫", "👩‍👩‍👧 family", "ΣΊΣΥΦΟΣ", "x" * 60, "", "…", "a_b", "über straße", "<start_of_text> x", "schÃ¶n"),
]


def bare(**about: object) -> runtime.Runtime:
    """A runtime that knows nothing but what is told."""
    segment = runtime.Runtime.__new__(runtime.Runtime)
    segment.about = runtime.Description(**(dict.fromkeys(runtime.Description._fields) | about))
    segment.tokenizer, segment.vectors = export.tokenizer(), {}
    return segment


@pytest.mark.parametrize("text", TEXTS)
def test_the_exported_tokenizer_is_clips(text):
    """Through the very line of the runtime that cleans and cuts."""
    start, end = token_tables()[0]["<start_of_text>"], token_tables()[0]["<end_of_text>"]
    segment = bare(templates=["{}", "a {}."], start=start, end=end, most_tokens=77)
    seen = []
    segment.text = lambda tokens: [seen.append(tokens[0]) or np.zeros((1, 4))]
    segment.encode(text)
    for row, template in zip(seen[0], segment.about.templates, strict=True):
        (expected,) = tokenize([template.format(text)])
        assert row[: len(expected)].tolist() == expected
        assert not row[len(expected) :].any()


def test_words_that_make_no_sense():
    segment = bare(tasks=["panoptic", "semantic"], stuff={"sky"}, vocabularies=[])
    for words, names, thing in (
        (" red  car, auto [stuff]", ("red car", "auto"), False),
        ("sky", ("sky",), False),
        ("sky [thing]", ("sky",), True),
    ):
        (entry,) = segment.read_words([words])
        assert (entry.names, entry.thing) == (names, thing)
    with pytest.raises(ValueError, match="blank"):
        segment.read_words(["car,, auto"])
    with pytest.raises(ValueError, match="No words were given"):
        segment("a.png", [])
    with pytest.raises(ValueError, match="instance"):
        segment("a.png", ["car"], task="instance")
    with pytest.raises(ValueError, match="keep came as 0"):
        segment("a.png", ["car"], keep=0)
    with pytest.raises(ValueError, match=r"overlap came as 1\.5; expected a share"):
        segment("a.png", ["car"], overlap=1.5)


# The folder and the command line --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.json", "tokenizer.json", "model.onnx", "text.onnx"])
def test_a_missing_file_is_named(segment, tmp_path, name):
    (tmp_path / "exported" / name).unlink()
    with pytest.raises(ValueError, match=f"no file '.*{name}'. Copy the whole folder"):
        runtime.Runtime(tmp_path / "exported")


@pytest.mark.parametrize("name", ["model.json", "tokenizer.json", "model.onnx"])
def test_a_damaged_file_is_named(segment, tmp_path, monkeypatch, name):
    monkeypatch.undo()  # graphs are opened
    pytest.importorskip("onnxruntime")
    (tmp_path / "exported" / name).write_text("{")
    with pytest.raises(ValueError, match=f"{name}' is damaged: "):
        runtime.Runtime(tmp_path / "exported")


def test_a_folder_of_another_version_is_named(segment, tmp_path):
    file = tmp_path / "exported" / "model.json"
    about = json.loads(file.read_text())
    del about["emits"]
    file.write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"lacks emits\. Use the runtime\.py beside it"):
        runtime.Runtime(tmp_path / "exported")


def test_how_words_were_understood_is_printed(on_shell):
    status, _, errors = on_shell("a.png", "car, automobile")
    assert (status, errors) == (0, "note: 1 word: car, also called automobile — write ; between classes\n")


def test_how_words_were_understood_is_warned_of(segment):
    with pytest.warns(UserWarning, match="1 word: car . road — write ; between classes") as told:
        segment(RGB, "car . road")
    assert [one.filename for one in told] == [__file__]


def test_the_command_line_says_what_it_found(on_shell):
    for given in (["road", "car, automobile"], ["road; car, automobile"], ["--words-file", "words.txt"]):
        status, out, errors = on_shell("a.png", *given, "--task", "semantic")
        assert (status, errors) == (0, "")
        assert {line.split("  ")[0] for line in out.splitlines()} <= {"road", "car"}
    status, out, errors = on_shell("a.png", "--task", "semantic", "road", "car, automobile")
    assert (status, errors) == (0, ""), "options may stand among the words"
    status, out, _ = on_shell("--help")
    assert status == 0
    assert "PICTURE" in out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["missing.png", "car"], "The picture 'missing.png' does not exist"),
        (["words.txt", "car"], "is not a picture"),
        ([".", "car"], "is a folder"),
        (["a.png"], "No words were given"),
        (["a.png", " "], "blank"),
        (["a.png", "car", "Car"], "given twice"),
        (["a.png", "car", "--task", "instance"], "task came as 'instance'; this model does panoptic and semantic"),
        (["a.png", "--words-file", "missing.txt"], "does not exist"),
        (["a.png", "b.HEIC", "car"], "'b.HEIC' looks like a file, not a word"),
        (["a.png", "words.txt"], "give it as --words-file words.txt"),
        (["a.png", "car", "--words-file", "words.txt"], "two ways"),
        (["a.png", "word " * 90], "too long"),
        ([], "usage"),
        (["a.png", "car", "--colour"], "unrecognized"),
    ],
)
def test_the_command_line_ends_with_a_message(on_shell, given, message):
    status, out, errors = on_shell(*given)
    assert (status, out) == (2, "")
    assert message in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("lost", ["model.json", "model.onnx"])
def test_a_lost_file_on_the_command_line(on_shell, tmp_path, lost):
    (tmp_path / "exported" / lost).unlink()
    status, out, errors = on_shell("a.png", "car")
    assert (status, out) == (2, "")
    assert lost in errors


# Imports --------------------------------------------------------------------------------------------------------------


def test_importing_wordmask_or_the_runtime_does_not_import_torch():
    script = "import sys, wordmask, wordmask.runtime; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"


def test_the_copies_are_used_whichever_wordmask_is_installed(tmp_path):
    """Even as a package, as `exported.runtime`."""
    folder = tmp_path / "exported"
    folder.mkdir()
    export.write_runtime(folder)
    for place, module in ((folder, "runtime"), (tmp_path, "exported.runtime")):
        report = "print(sys.modules[it.Runtime.__module__].__file__, 'torch' in sys.modules)"
        script = f"import sys, {module} as it; {report}"
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=place, capture_output=True, text=True, check=True, timeout=120
        )
        assert done.stdout.split() == [str(folder / export.PARTS / "runtime.py"), "False"]


def test_the_runtime_is_short():
    assert len(Path(runtime.__file__).read_text().splitlines()) <= 200
