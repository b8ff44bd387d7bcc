import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wordmask.vocabulary import DECLARE_KINDS, Vocabulary, builtin_names, stuff_words


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
