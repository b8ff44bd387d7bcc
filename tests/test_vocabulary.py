import json
import time
import unicodedata
import warnings
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wordmask.vocabulary import DECLARE_KINDS, Vocabulary, builtin_names, stuff_words
from wordmask.vocabulary_lists import describe_classes
from wordmask.word_lines import NUMBER_FIRST, spelled
from wordmask.words import WordsWarning


def test_words_in_every_form(tmp_path):
    expected = [("road",), ("car", "automobile"), ("sky",)]
    text, listed, own = tmp_path / "words.txt", tmp_path / "list.json", tmp_path / "own.json"
    text.write_text("# my words\nroad  # asphalt\n\ncar, automobile,\nsky\n", encoding="utf-8-sig")
    listed.write_text(json.dumps(["road", "car, automobile", "sky"]))
    own.write_text(json.dumps({"classes": [{"names": names} for names in expected]}))
    forms = [
        ["road", "car,automobile", " sky "],
        "road; car, automobile ;sky;",
        text,
        str(text),
        listed,
        own,
        ("road", "car, automobile", "sky"),
    ]
    for form in forms:
        vocabulary = Vocabulary.of(form)
        assert [entry.names for entry in vocabulary] == expected
        assert [entry.thing for entry in vocabulary] == [False, True, False]
    assert Vocabulary.of(vocabulary) is vocabulary


def test_a_user_may_say_the_kind():
    first, second, third = Vocabulary.of("snow drift, snow [stuff]; sky [thing]; cat")
    assert (first.names, first.thing) == (("snow drift", "snow"), False)
    assert (second.names, second.thing) == (("sky",), True)
    assert third.thing
    for words in ("snow [stuff] ; sky", ["snow [stuff] ", "sky"], "snow [stuff],; sky", "snow [Stuff]; sky"):
        assert [(entry.name, entry.thing) for entry in Vocabulary.of(words)] == [("snow", False), ("sky", False)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "No words were given"),
        ([""], "word 1 of 1 is blank"),
        (["road", "  "], "word 2 of 2 is blank"),
        ("road;;sky", "word 2 of 3 is blank"),
        (None, "expected a list of strings"),
        (3, "expected a list of strings"),
        ("a [thing], b", "in the middle"),
        (["caf\udce9"], "no text that can be read"),
        (["car,,automobile"], "word 1 of 1 is blank"),
        (["car", "Car"], "given twice: as word 1 and as word 2"),
        (["car, automobile", "automobile"], "'automobile' is given twice"),
        (["car, car"], "given twice: in word 1"),
        (["traffic  light", "traffic light"], "given twice"),
        ([3], "expected a string"),
        ("missing.txt", "does not exist"),
    ],
)
def test_what_makes_no_sense_is_refused(words, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary.of(words)


def test_a_json_file_is_held_to_the_same(tmp_path):
    path = tmp_path / "words.json"
    for names, message in (
        ('"car"', "not a vocabulary"),
        ('["car"]}, {"names": ["Car"]', "given twice"),
        ("[3]", "blank"),
        ('["a"], "thing": "yes"', "neither true"),
    ):
        path.write_text(f'{{"classes": [{{"names": {names}}}]}}')
        with pytest.raises(ValueError, match=message):
            Vocabulary.of(path)


def test_more_words_than_a_label_map_holds():
    with pytest.raises(ValueError, match="16 bits holds 65535"):
        Vocabulary.of([f"word {number}" for number in range(65_536)])
    assert len(Vocabulary.of([f"word {number}" for number in range(65_535)])) == 65_535


@pytest.mark.parametrize("content", ["", "# nothing\n\n", "{}", "7", '{"classes": [{}]}', "[1]"])
def test_a_words_file_without_words_is_refused(tmp_path, content):
    path = tmp_path / ("words.json" if content.startswith(("{", "7", "[")) else "words.txt")
    path.write_text(content)
    with pytest.raises(ValueError, match=r"words|vocabulary|string"):
        Vocabulary.from_file(path)


def test_a_broken_words_file_is_refused(tmp_path):
    path = tmp_path / "words.json"
    path.write_text('["road", ')
    with pytest.raises(ValueError, match="cannot be read"):
        Vocabulary.of(path)
    path.with_suffix(".txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match="cannot be read"):
        Vocabulary.of(path.with_suffix(".txt"))


def test_built_in_names_equal_their_source(shared):
    for path in (shared / "vocabularies").glob("*-seg.*.json"):
        source = json.loads(path.read_text())
        family, name, _ = path.name.split(".")
        ours = Vocabulary.builtin(f"{family}/{name}")
        assert [list(entry.names) for entry in ours] == [
            [" ".join(n.split()) for n in entry["names"]] for entry in source["classes"]
        ]
        assert [entry.dataset_id for entry in ours] == [entry.get("dataset_id") for entry in source["classes"]]
        # PASCAL's lists call everything stuff, or everything a thing: that is no fact
        if family == "eov-seg" and name in DECLARE_KINDS:
            assert [entry.thing for entry in ours] == [entry.get("thing", False) for entry in source["classes"]]
        assert source["source"].split(",")[0] in ours.source
        assert ours.licence in ("MIT", "Apache-2.0")


def test_the_two_papers_can_be_told_apart():
    assert Vocabulary.of("ade20k-150").title == Vocabulary.of("ade20k-150", "err-seg").title == "err-seg/ade20k-150"
    assert Vocabulary.of("ade20k-150", "eov-seg").title == "eov-seg/ade20k-150"
    assert Vocabulary.of("lvis-1203", "err-seg").title == "eov-seg/lvis-1203", "the only one there is"
    assert len(Vocabulary.of("eov-seg/ade20k-150").classes[0].names) > 1
    with pytest.raises(ValueError, match=r"Did you mean ade20k-150"):
        Vocabulary.builtin("ade20k150")


def test_what_benchmarks_call_stuff_is_stuff():
    assert not any(entry.thing for entry in Vocabulary.of(["sky", "Road", "grass", "wall", "sea"]))
    assert all(entry.thing for entry in Vocabulary.of(["car", "person", "unicorn", "coffee machine"]))
    assert len(stuff_words()) > 150
    panoptic = Vocabulary.of("eov-seg/ade20k-150")
    assert sum(entry.thing for entry in panoptic) == 100
    assert [entry.thing for entry in Vocabulary.of("err-seg/ade20k-150")] == [entry.thing for entry in panoptic]
    assert sum(entry.thing for entry in Vocabulary.of("eov-seg/coco-panoptic-133")) == 80
    assert sum(entry.thing for entry in Vocabulary.of("err-seg/coco-stuff-171")) == 80


def test_every_built_in_can_be_loaded():
    for name in builtin_names():
        vocabulary = Vocabulary.builtin(name)
        assert len(vocabulary) == int("".join(filter(str.isdigit, name.rsplit("-", 1)[1]))) or name.endswith("voc-20b")


@given(
    st.lists(
        st.text(alphabet="abcdefgh ", min_size=1).filter(str.strip),
        min_size=1,
        unique_by=lambda word: " ".join(word.split()),
    )
)
def test_order_and_number_are_kept(words):
    assert Vocabulary.of(words).names == [" ".join(word.split()) for word in words]


@pytest.mark.parametrize("words", ["ade20k-151", "eov-seg/ade20k-15", "coco-panoptic-134", "ADE20K-150"])
def test_a_misspelt_vocabulary_is_no_word(words):
    with pytest.raises(ValueError, match="There is no vocabulary"):
        Vocabulary.of(words)
    assert Vocabulary.of("covid-19").names == Vocabulary.of(["covid-19"]).names == ["covid-19"]


@pytest.mark.parametrize(
    "word", ["ball [stuf]", "ball, sphere [Things]", "ball [thing] [stuff]", "ball []", "ball [foo], sphere"]
)
def test_an_unknown_mark_is_an_error(word):
    with pytest.raises(ValueError, match=r"(Expected|Write) \[stuff\] or \[thing\]"):
        Vocabulary.of([word])


# How words were understood --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "doubt"),
    [
        ("purple car, cobblestone", "1 word: purple car, also called cobblestone — write ; between classes"),
        (["a, b, c"], "1 word: a, also called b and c — write ; between classes"),
        ("a . b . c", "1 word: a . b . c — write ; between classes"),
        ("a cat. a remote control.", "1 word: a cat. a remote control. — write ; between classes"),
        ("cat|dog", "1 word: cat|dog — write ; between classes"),
        ("cat / dog; sky", "1 of 2 words: cat / dog — write ; between classes"),
        ("cat/dog", "1 word: cat/dog — write ; between classes"),
        (["sky", "cat . dog"], "1 of 2 words: cat . dog — write ; between classes"),
        (r"cat\ndog", r"1 word: cat\ndog — write ; between classes"),
        ("猫、犬", "1 word: 猫、犬 — write ; between classes"),
        (",".join("abcdefghijkl"), "1 word: a, also called b, c, d, e, f, g, h and 4 more — write ; between classes"),
    ],
)
def test_what_looks_like_several_classes_is_said(words, doubt):
    with pytest.warns(WordsWarning) as told:
        vocabulary = Vocabulary.of(words)
    assert [str(one.message) for one in told] == [vocabulary.doubt] == [doubt]
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Vocabulary.of(vocabulary) is vocabulary, "once"
        assert Vocabulary.read(words) == vocabulary


@pytest.mark.parametrize(
    "words",
    [
        "cup, mug; spoon; table",
        ["car, automobile", "sky"],
        "st. bernard",
        "dr. pepper",
        "tv/monitor; sky",
        "1/2 inch bolt",
        "person w/o helmet",
        "t-shirt no. 5",
        "U.S. flag",
        "red car",
        "ade20k-150",
        *builtin_names(),
    ],
)
def test_what_is_plain_is_left_alone(words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Vocabulary.of(words).doubt == ""


def test_a_segmenter_warns_once(tiny, picture):
    from wordmask.segmenter import Segmenter

    segmenter = Segmenter(tiny)
    with pytest.warns(WordsWarning, match="also called mug") as told:
        results = [segmenter(picture, "cup, mug") for _ in range(3)]
    assert [one.filename for one in told] == [__file__]
    assert [len(result.vocabulary) for result in results] == [1, 1, 1]


def test_line_breaks_separate_classes():
    expected = [("road",), ("car", "automobile"), ("sky",)]
    for words in (
        "road\ncar, automobile\nsky",
        "\n  road\r\n\n  car, automobile,\r\n# mine\n  sky\n",
        ["road\ncar, automobile", "sky\n"],
        "road\ncar, automobile; sky",
        "road\u2028car, automobile\x0bsky",
        "0: road\n1: car, automobile\n2: sky",
        "- road\n- car, automobile\n- sky",
    ):
        assert [entry.names for entry in Vocabulary.of(words)] == expected, words


def test_what_has_no_order_is_refused():
    for words in ({"car", "road"}, frozenset(["car", "road"]), set()):
        with pytest.raises(ValueError, match=r"came as a set, which has no order.*sorted\(words\)"):
            Vocabulary.of(words)
    for words in ({"car": 0, "road": 1}, {0: "car", 1: "road"}):
        with pytest.raises(ValueError, match="came as a dict"):
            Vocabulary.of(words)
    for ordered in ({"car": 0, "road": 1}.keys(), {0: "car", 1: "road"}.values(), iter(["car", "road"])):
        assert Vocabulary.of(ordered).names == ["car", "road"]


@pytest.mark.parametrize("words", ["names.csv", "street.jpg", "IMG_2.HEIC", "C:\\words", "data/names.list"])
def test_a_string_like_a_file_is_refused_and_a_list_is_not(words):
    with pytest.raises(ValueError, match="looks like a file"):
        Vocabulary.of(words)
    assert Vocabulary.read([words]).names == Vocabulary.read(f"{words};").names == [words]


@pytest.mark.parametrize("words", ['["car", "road"]', "{'car': 0}", ["['car'"]])
def test_a_list_written_as_a_string_is_refused(words):
    with pytest.raises(ValueError, match="begins like a list in json or Python"):
        Vocabulary.of(words)


# Spelling -------------------------------------------------------------------------------------------------------------

ALIKE = [
    ("café", "cafe\u0301"),
    ("car", "ｃａｒ"),
    ("car", "c\u200bar"),
    ("car", "\ufeffcar"),
    ("car", "ca\u00adr"),
    ("car", "car\u200d"),
    ("car", "c\u200c\u200c\u200car"),
    ("car", "\u202acar\u202c"),
    ("red car", "red\u00a0car"),
    ("red car", "red\u3000car"),
    ("fire", "ﬁre"),
    ("baker's shop", "baker’s shop"),
    ("ガラス", "ｶﾞﾗｽ"),
    ("дом", "до\u200dм"),
    ("Å", "\u212b"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_what_looks_alike_is_one_word(one, other):
    with pytest.raises(ValueError, match="given twice"):
        Vocabulary.of([one, other])
    if "’" not in other:  # as it was typed, but compared as CLIP reads it
        assert Vocabulary.of([other]).names == [one]


def test_what_differs_stays_apart():
    """NFKC would make one of each pair; CLIP doesn't."""
    words = [
        "½ pint",
        "1/2 pint",
        "m²",
        "m2",
        "brand™",
        "brandTM",
        "①",
        "1",
        "👩\u200d👩\u200d👧",
        "👩👩👧",
        "می\u200cخواهم",
        "میخواهم",
    ]
    assert Vocabulary.of(words).names == words


def test_marks_in_full_width_are_marks():
    found = Vocabulary.of("雪，積雪［ｓｔｕｆｆ］；車")
    assert [(entry.names, entry.thing) for entry in found] == [(("雪", "積雪"), False), (("車",), True)]


@pytest.mark.parametrize("word", ["car\0", "\x1b[31mcar", "c\x7far", "c\x9bar"])
def test_control_characters_are_no_text(word):
    with pytest.raises(ValueError, match="no text that can be read"):
        Vocabulary.of([word])


@given(st.text())
def test_one_spelling_is_reached_at_once(text):
    once = spelled(text)
    assert unicodedata.is_normalized("NFC", once)
    assert spelled(once) == once


@pytest.mark.parametrize(
    "words",
    [
        "a" + " " * 250_000 + "b\nc",
        "a" + " " * 250_000 + "b",
        "a" + "\u200d" * 250_000,
        "👩" + "\u200d" * 250_000,
        "abc. " * 50_000,
        "a:" * 100_000 + "\nb",
        "[" * 200_000 + "\nb",
    ],
)
def test_no_text_takes_long(words):
    """The server reads what anybody sends: nothing may go over it again and again."""
    began = time.perf_counter()
    with suppress(ValueError):
        assert Vocabulary.read([words]).doubt is not None
    assert time.perf_counter() - began < 3


# Files ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("plainly", [True, False])
@pytest.mark.parametrize("name", [name for name in builtin_names() if "/" in name])
def test_a_printed_vocabulary_can_be_read(tmp_path, name, plainly):
    """Also as the terminal shows it; names that stand twice are marked only in a words file."""
    lines, wanted = list(describe_classes(name, plainly=plainly)), Vocabulary.builtin(name)
    (tmp_path / "words.txt").write_text("\n".join(lines))
    if not plainly and next(describe_classes(name, plainly=True)).startswith("#"):
        with pytest.raises(ValueError, match="given twice"):
            Vocabulary.from_file(tmp_path / "words.txt")
        return
    found = Vocabulary.from_file(tmp_path / "words.txt")
    assert [(entry.names, entry.thing) for entry in found] == [(entry.names, entry.thing) for entry in wanted]


def read(folder, content: str | bytes, *, counted: bool = False) -> list[str]:
    """First names of a words file with this content."""
    path = folder / "words.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return Vocabulary.from_file(path, counted=counted).names


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_that_can_be_told_are_read(tmp_path, encoding):
    assert read(tmp_path, "café\r\ncar\r\n".encode(encoding)) == ["café", "car"]
    (tmp_path / "words.json").write_bytes('["café", "car"]'.encode(encoding))
    assert Vocabulary.of(tmp_path / "words.json").names == ["café", "car"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("car\ncafé\n".encode("latin-1"), r"its line 2 is no UTF-8 \(byte 0xe9\)\. As Latin-1 it says 'café'"),
        ("car\n".encode("utf-16-le"), "UTF-16 without a byte order mark"),
        (b"\xff\xfec\0a", "begins as UTF-16"),
        (b"\x89PNG\r\n\x1a\n\0\0", "zero bytes"),
    ],
)
def test_other_encodings_are_refused_by_name(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, content)


def test_comments_begin_a_line_or_stand_apart(tmp_path):
    lines = "# mine\nroute #66 sign\nroad  # asphalt\nsky # blue\nC# logo\n  # more\ncar\t#2\nwall #\n"
    assert read(tmp_path, lines) == ["route #66 sign", "road", "sky", "C# logo", "car", "wall"]
    (tmp_path / "words.json").write_text('["route #66 sign", "# is a word here", "road  # too"]')
    assert Vocabulary.of(tmp_path / "words.json").names == ["route #66 sign", "# is a word here", "road # too"]


@pytest.mark.parametrize(
    "content",
    [
        "0: car\n1: road",
        "0 car\n1 road",
        "0. car\n1. road",
        "0) car\n1) road",
        "0 - car\n1 - road",
        "0\tcar\n1\troad",
        "car: 0\nroad: 1",
        "car\t0\nroad\t1",
        "- car\n- road",
        "* car\n* road",
        "names:\n  0: car\n  1: road",
        "names:\n- car\n- road",
        "id,name\n0,car\n1,road",
        "name;label\ncar;0\nroad;1",
        "index\tclass\n0\tcar\n1\troad",
        "    0  thing  car\n    1  stuff  road",
    ],
)
@pytest.mark.parametrize("counted", [False, True])
def test_numbers_in_order_are_no_part_of_names(tmp_path, content, counted):
    assert read(tmp_path, content + "\n", counted=counted) == ["car", "road"]
    assert read(tmp_path, "# mine\n" + content.replace("car", "car, automobile")) == ["car", "road"]
    if all(map(NUMBER_FIRST.fullmatch, content.splitlines())):
        assert Vocabulary.of(content.splitlines()).names == ["car", "road"], "and not in a list"


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("1: car\n2: road", "line 1 there is '1: car' where 0"),
        ("1. car\n2. road", "line 1 there is '1. car' where 0"),
        ("1\tcar\n2\troad", "line 1 there is"),
        ("1 car\n2 road", "line 1 there is '1 car' where 0"),
        ("0: car\n\n2: road", "line 3 there is '2: road' where 1|blank line, line 2"),
        ("0: car\nroad", "line 2 there is 'road' where 1"),
        ("car: 1\nroad: 2", "line 1 there is 'car: 1' where 0"),
        ("0,car\n1,road", "'0,car' in line 1"),
        ("0, zero\n1, one", "'0, zero' in line 1"),
        ("0;car\n1;road", "in line 1"),
        ("car 0\nroad 1", "'car 0' in line 1"),
        ("- car\nroad", "in line 2 there is none"),
        ("name\ncar\nroad", "line 1, 'name', the head"),
        ("path: .\nnames:\n  0: car", "line 1 there is 'path: .' where 0"),
        ("train:\nnames:\n  0: car", "line 1, 'train:', the head"),
        ("id,name\n1,car\n2,road", "line 2 there is '1,car' where 0"),
        ("Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1576\t11664\t1172\t1\twall", "line 1, .* the head"),
        ("car\troad", "columns in line 1"),
        ("car\nroad\tstreet", "columns in line 2"),
        ("   10  stuff  sky\n   11  thing  car", "line 1 there is"),
        ('["car", "road"]', "json"),
    ],
)
@pytest.mark.parametrize("counted", [False, True])
def test_numbers_that_cannot_be_told_are_refused(tmp_path, content, line, counted):
    with pytest.raises(ValueError, match=line):
        read(tmp_path, content, counted=counted)


@pytest.mark.parametrize(
    "names",
    [
        ["7 up can", "road"],
        ["1. FC Köln", "FC Bayern"],
        ["1 euro", "2 euro", "5 euro"],
        ["room 0", "room 1"],
        ["10:30 clock", "16:9 screen"],
        ["0", "1", "2"],
        ["3d printer"],
        ["covid-19", "t-shirt no. 5"],
    ],
)
def test_numbers_of_names_stay(tmp_path, names):
    assert read(tmp_path, "\n".join(names)) == names
    assert Vocabulary.of(names).names == names


def test_lines_that_count(tmp_path):
    for content in ("\ncar\nroad", "car\n\nroad", "car\n  \t\nroad\n", "# mine\n\ncar"):
        with pytest.raises(ValueError, match="blank line, line"):
            read(tmp_path, content, counted=True)
        assert read(tmp_path, content)[0] == "car", "a list of words may have them"
    for content in ("car; road\nsky", "car\x0croad\nsky", "car\u2028road\nsky"):
        with pytest.raises(ValueError, match="in line 1"):
            read(tmp_path, content, counted=True)
        assert read(tmp_path, content) == ["car", "road", "sky"]
    assert read(tmp_path, "# mine\ncar\n  # more\nroad  # asphalt\n\n\n", counted=True) == ["car", "road"]
