import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wordmask.file_names import PICTURE_ENDINGS, looks_like_file
from wordmask.folders import SAME_FOLDER, Reason
from wordmask.sources import PICTURE_FILES, find_inputs, find_pictures, split_pictures_and_words, without_files


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with pictures, a folder called like a word, and what must not be read."""
    monkeypatch.chdir(tmp_path)
    names = """street.jpg photo photos/a.jpg photos/a.png photos/deep/b.JPG photos/.hidden/c.jpg photos/notes.txt
        photos/a.masks.png photos/a.labels.png photos/a.panoptic.png road/x.png other/a.jpg words.txt empty/readme.md"""
    for name in names.split():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "pictures", "words"),
    [
        (["street.jpg", "empty", "car, automobile", "sky"], ["street.jpg"], ["empty", "car, automobile", "sky"]),
        (["photo", "sky"], ["photo"], ["sky"]),
        (["~nosuchuser/a.jpg", "sky"], ["~nosuchuser/a.jpg"], ["sky"]),
        (["street.jpg", "x" * 300], ["street.jpg"], ["x" * 300]),
        (["sky", "street.jpg"], ["street.jpg"], ["sky"]),
        (["photos", "sky"], ["photos"], ["sky"]),
        (["road", "sky"], ["road"], ["sky"]),
        (["street.jpg", "sky", "empty"], ["street.jpg"], ["sky", "empty"]),
        (["./road", "sky", "empty"], ["./road"], ["sky", "empty"]),
        (["road", "photos", "sky"], ["road", "photos"], ["sky"]),
        (["", "street.jpg", " "], ["street.jpg"], ["", " "]),
        (["photos/*.jpg", "sky"], ["photos/*.jpg"], ["sky"]),
        (
            ["street.jpg", "what is this?", "snow [stuff]", "tv/monitor"],
            ["street.jpg"],
            ["what is this?", "snow [stuff]", "tv/monitor"],
        ),
        (["missing.jpg", "../gone", "sky"], ["missing.jpg", "../gone"], ["sky"]),
        (["photos/deep", "sky"], ["photos/deep"], ["sky"]),
    ],
)
def test_pictures_are_told_from_words(here, arguments, pictures, words):
    assert split_pictures_and_words(arguments) == (pictures, words)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("my photo.jpgg", "none of that name"),
        ("photo.jgp", "none of that name"),
        ("photo.pn", "none of that name"),
        ("clip.mp4", "wordmask batch"),
        ("names.txt", "--words-file"),
        ("scan.dcm", "none of that name"),
        ("photos/2024", "none of that name"),
        ("photos/x*", "none of that name"),
        ("there/img.xyz", "none of that name"),
        (r"C:\pictures\a", "none of that name"),
        ("https://example.org/pictures", "none of that name"),
    ],
)
def test_a_file_that_is_not_there_is_no_word(here, word, message):
    for arguments in (["street.jpg", word, "sky"], [word, "street.jpg", "sky"]):
        with pytest.raises(ValueError, match=f"{message}.*--words"):
            split_pictures_and_words(arguments)
    with pytest.raises(ValueError, match=message):
        without_files([word])


def test_an_existing_file_is_no_word(here):
    (here / "IMG_2.HEIC").write_bytes(b"x")
    (here / "scan.xyz").write_bytes(b"x")
    assert split_pictures_and_words(["IMG_2.HEIC", "scan.xyz", "sky"]) == (["IMG_2.HEIC", "scan.xyz"], ["sky"])
    (here / "classes.csv").write_text("0,car")
    with pytest.raises(ValueError, match=r"--words-file classes\.csv"):
        split_pictures_and_words(["street.jpg", "classes.csv"])


ABBREVIATIONS = st.sampled_from(
    ["st.", "dr.", "no.", "U.S.", "U.K.", "mr.", "Mt.", "e.g.", "vol. 2.", "R.E.M.", "a.m.", "Inc.", "p. 5", "1.5"]
)
TERMS = st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789-'", min_size=1, max_size=9)


@given(st.lists(ABBREVIATIONS | TERMS, min_size=1, max_size=4))
def test_words_with_dots_are_words(terms):
    word = " ".join(terms)
    assert not looks_like_file(word)
    assert not looks_like_file(word + ".")


@given(st.lists(TERMS, min_size=1, max_size=3), st.sampled_from(sorted(PICTURE_ENDINGS)), st.data())
def test_names_of_pictures_with_a_slip_are_files(terms, ending, data):
    place = data.draw(st.integers(0, len(ending) - 1))
    letter = data.draw(st.sampled_from("abcdefgmnpx"))
    slips = [ending, ending[:place] + ending[place + 1 :], ending[:place] + letter + ending[place + 1 :]]
    slips += [
        ending[:place] + letter + ending[place:],
        ending[:place] + ending[place : place + 2][::-1] + ending[place + 2 :],
    ]
    name = " ".join(terms)
    for slip in slips:
        assert looks_like_file(f"{name}.{slip}")
        assert looks_like_file(f"{name}.{slip.upper()}")


def test_what_may_be_either_is_asked(here):
    for arguments in (["street.jpg", "road", "sky"], ["street.jpg", "sky", "road"], ["photos", "sky", "road"]):
        with pytest.raises(ValueError, match=r"Write \./road for the folder"):
            split_pictures_and_words(arguments)


def test_results_may_lie_beside_their_pictures(here):
    (here / "photos" / "a.json").write_text("{}")
    assert len(find_pictures(["photos"], skip=here / "photos")) == 3
    assert len(find_pictures(["photos"], skip=here)) == 3


def test_own_results_are_not_read_again(here):
    names = [source.path.name for source in find_pictures(["photos/a.png", "photos/a.masks.png", "photos/*.png"])]
    assert names == ["a.png"]
    assert len(find_pictures(["photos/a.masks.png"])) == 1, "but it may be asked for"


def test_names_that_differ_in_case_stay_apart(here):
    (here / "other" / "STREET.jpg").write_bytes(b"x")
    stems = [source.stem.as_posix().casefold() for source in find_pictures(["street.jpg", "other/STREET.jpg"])]
    assert len(set(stems)) == 2


def test_a_name_too_long_is_left_to_the_reader(here):
    assert len(find_pictures(["street.jpg", "x" * 300 + ".jpg"])) == 2


def test_a_words_file_is_no_word(here):
    with pytest.raises(ValueError, match=r"--words-file words\.txt"):
        split_pictures_and_words(["street.jpg", "words.txt"])


def test_folders_are_opened_and_names_are_unique(here):
    found = {
        source.path.as_posix(): source.stem.as_posix()
        for source in find_pictures(["photos", "street.jpg", "street.jpg", "other"])
    }
    assert found == {
        "photos/a.jpg": "photos/a.jpg",
        "photos/a.png": "photos/a.png",
        "photos/deep/b.JPG": "photos/deep/b",
        "street.jpg": "street",
        "other/a.jpg": "other/a",
    }
    alone = {
        source.path.as_posix(): source.stem.as_posix() for source in find_pictures(["photos", "photos/../photos/a.jpg"])
    }
    assert alone == {"photos/a.jpg": "a.jpg", "photos/a.png": "a.png", "photos/deep/b.JPG": "deep/b"}


def test_many_equal_names_stay_apart(here):
    for folder in ("one/x", "two/x"):
        (here / folder).mkdir(parents=True)
        (here / folder / "a.jpg").write_bytes(b"x")
    for arguments in (["one/x/a.jpg", "two/x/a.jpg", "photos/a.jpg"], ["one/x", "two/x", "photos"]):
        stems = [source.stem.as_posix() for source in find_pictures(arguments)]
        assert len(set(stems)) == len(stems)
        assert {"one/x/a.jpg", "two/x/a.jpg"} <= set(stems)


def test_the_output_folder_is_not_read(here):
    (here / "photos" / "masks").mkdir()
    (here / "photos" / "masks" / "old.png").write_bytes(b"x")
    names = [source.path.name for source in find_pictures(["photos"], skip=here / "photos" / "masks")]
    assert "old.png" not in names
    assert "b.JPG" in names


@pytest.mark.parametrize(
    ("argument", "message"),
    [("empty", "holds no pictures"), ("*.gif", "No picture matches"), ("gone.jpg", "no picture 'gone.jpg'")],
)
def test_nothing_there(here, argument, message):
    with pytest.raises(ValueError, match=message):
        find_pictures([argument])


def test_one_missing_file_among_others_is_left_to_the_reader(here):
    assert len(find_pictures(["street.jpg", "gone.jpg"])) == 2


def test_links_count_under_their_own_names(here):
    """Linked files and folders are read, each under every name; a link back up is named, and ends there."""
    (here / "far").mkdir()
    (here / "far" / "f.jpg").write_bytes(b"x")
    for name, target in (("l.jpg", "a.jpg"), ("far", here / "far"), ("far2", "far"), ("up", ".."), ("self", "self")):
        (here / "photos" / name).symlink_to(target)
    (here / "photos" / "gone.jpg").symlink_to("nothing")
    inputs = find_inputs(["photos"])
    stems = [source.stem.as_posix() for source in inputs.sources if not source.problem]
    assert stems == ["a.jpg", "a.png", "deep/b", "far/f", "far2/f", "l"]
    assert {source.stem.name for source in inputs.sources if source.problem} == {"gone", "self"}
    assert inputs.skips.names[Reason.LOOP] == ["photos/up/"]


def test_globs_follow_links_and_end(here):
    """Two links back up would be 2⁴⁰ folders for one who follows them until the system refuses."""
    for name in ("one", "two"):
        (here / "photos" / name).symlink_to(".")
    assert [source.path.as_posix() for source in find_inputs(["photos/**/*.jpg"]).sources] == ["photos/a.jpg"]
    assert len(find_inputs(["photos/**"]).sources) == 3
    assert len(find_inputs(["photos/**/*"]).sources) == 3


def test_a_folder_that_many_links_lead_to_is_read_a_few_times(here):
    """Ten folders that link to the next twice are 1024 names of the last."""
    for number in range(10):
        (here / "chain" / str(number)).mkdir(parents=True)
        for name in "ab":
            (here / "chain" / str(number) / name).symlink_to(here / "chain" / str(number + 1))
    (here / "chain" / "10").mkdir()
    (here / "chain" / "10" / "x.jpg").write_bytes(b"x")
    inputs = find_inputs(["chain/0"])
    assert len(inputs.sources) == SAME_FOLDER
    assert inputs.skips.counts[Reason.LOOP] > 0


def test_what_is_left_out_is_said(here):
    (here / "photos" / "IMG_1.CR2").write_bytes(b"x")
    (here / "photos" / "IMG_2.HEIC").write_bytes(b"x")
    (here / "photos" / "__MACOSX").mkdir()
    inputs = find_inputs(["photos", "photos/a.jpg"])
    assert "IMG_2" in [source.stem.name for source in inputs.sources], "tried, and told if it can't be read"
    assert inputs.skips.lines() == [
        "1 no picture: photos/notes.txt",
        f"1 {Reason.OTHER_PICTURE}: photos/IMG_1.CR2",
        "2 hidden: photos/.hidden/, photos/__MACOSX/",
        "3 written by wordmask: photos/a.labels.png, photos/a.masks.png, photos/a.panoptic.png",
        "1 named before: photos/a.jpg",
    ]
    (here / "empty" / "more.md").write_text("x")
    with pytest.raises(
        ValueError, match=r"holds no pictures .* Left out: 2 no picture: empty/more.md, empty/readme.md"
    ):
        find_pictures(["empty"])


def test_what_cannot_be_opened_is_a_problem(here, monkeypatch):
    """Folders that may not be entered (root may enter all: the system's answer is made up), pipes, links to nothing."""
    ordinary = os.scandir

    def refused(place):
        if Path(place).name == "deep":
            raise PermissionError(13, "Permission denied")
        return ordinary(place)

    monkeypatch.setattr("wordmask.folders.os.scandir", refused)
    os.mkfifo(here / "photos" / "pipe.jpg")
    problems = {source.path.name: source.problem for source in find_inputs(["photos"]).sources if source.problem}
    assert problems == {
        "deep": "The folder 'photos/deep' can't be opened: Permission denied.",
        "pipe.jpg": "'photos/pipe.jpg' is no file, but a pipe, a socket or a device.",
    }
    (pipe,) = find_inputs(["photos/pipe.jpg"]).sources
    assert "is no file, but a pipe" in pipe.problem, "one that is named, too"
    with pytest.raises(ValueError, match="folder 'photos/deep' can't be opened: Permission denied"):
        find_inputs(["photos/deep"])


def test_a_longer_name_does_not_take_anothers(here):
    """a.jpg and a.png need their endings; a.jpg.png, called a.jpg, must then give way too."""
    for name in ("p/a.jpg", "p/a.png", "p/a.jpg.png", "q/r/a.jpg.png"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(b"x")
    stems = [source.stem.as_posix() for source in find_pictures(["p/a.jpg", "p/a.png", "p/a.jpg.png", "q/r/a.jpg.png"])]
    assert len(set(stems)) == 4


@given(st.data())
@settings(deadline=None, max_examples=60)
def test_no_two_pictures_share_a_name(data):
    """Whatever files and folders are named: every picture once, every name once, none outside the output folder."""
    names = st.sampled_from(["a.jpg", "a.png", "A.jpg", "a.jpg.png", "b.jpg", "x.jpg"])
    folders = st.sampled_from([".", "x", "y", "x/x", "y/x", "x/a.jpg"])
    files = data.draw(st.sets(st.tuples(folders, names), min_size=1, max_size=8))
    with tempfile.TemporaryDirectory() as root, pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        paths = []
        for folder, name in files:
            path = Path(root) / folder / name
            if path.exists() or any(parent.is_file() for parent in path.parents):
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
            paths.append(path)
        places = sorted({str(path) for path in paths} | {str(path.parent) for path in paths})
        arguments = data.draw(st.lists(st.sampled_from(places), min_size=1, max_size=4))
        sources = find_pictures(arguments)
        stems = [source.stem.as_posix() for source in sources]
        assert len({source.path.resolve() for source in sources}) == len(sources) == len(set(stems))
        assert not any(stem.startswith(("/", "..")) for stem in stems)


def test_every_ending_that_is_read_is_known_as_a_files():
    assert {ending[1:] for ending in PICTURE_FILES} <= PICTURE_ENDINGS
