import itertools
import json
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import wordmask
from conftest import colourful
from wordmask import background
from wordmask.background import DISTRACTORS, distractors
from wordmask.hardware import choose_device, choose_precision
from wordmask.pipeline import thread_count
from wordmask.preparing import stacked
from wordmask.results import as_labels
from wordmask.segmenter import Segmenter
from wordmask.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def segment(tiny):
    return Segmenter(tiny, name="tiny")


def test_the_public_surface():
    public = {"PictureNote", "Segmentation", "Segmenter", "Settings", "Vocabulary", "load", "read_picture"}
    assert set(wordmask.__all__) == public
    assert all(hasattr(wordmask, name) for name in wordmask.__all__)
    assert set(dir(wordmask)) >= set(wordmask.__all__)
    with pytest.raises(AttributeError):
        _ = wordmask.nothing


def test_three_lines_of_python(picture, tmp_path):
    segment = wordmask.load("err-seg-untrained")
    result = segment(picture, ["road", "car, automobile", "sky"])
    result.draw().save(tmp_path / "garden.masks.png")
    assert result.source == str(picture)
    assert result.labels.shape == (48, 64)
    assert {region.name for region in result.regions} <= {"road", "car", "sky"}
    assert all(0 < region.score <= 1 for region in result.regions)
    assert result.task == "semantic"
    assert result.settings.to_dict() == {
        "keep": 3,
        "threshold": 0.0,
        "background": None,
        "synonyms": "first",
        "precision": result.settings.precision,
    }


def test_settings_as_an_object(segment):
    careful = wordmask.Settings(threshold=0.3, keep=2)
    result = segment(colourful(40, 50), "sky; car; sea", careful, per_pixel=True)
    by_name = segment(colourful(40, 50), "sky; car; sea", threshold=0.3, keep=2)
    both = segment(colourful(40, 50), "sky; car; sea", wordmask.Settings(threshold=0.9, keep=2), threshold=0.3)
    assert result.settings == by_name.settings == both.settings
    assert (result.labels == by_name.labels).all()
    assert ((result.labels == 255) == (result.confidence < np.float32(0.3))).all(), "what is at least as probable stays"
    with pytest.raises(TypeError, match="unexpected keyword argument 'treshold'"):
        segment(colourful(40, 50), "sky", treshold=0.3)


def test_a_look_is_read_as_the_segmenter_reads(segment, segment_eov):
    for segmenter, tasks in ((segment, ["semantic"]), (segment_eov, ["panoptic", "instance", "semantic"])):
        for task in tasks:
            look = segmenter.look(colourful(40, 170), "person; sky; car", task=task)
            assert look.chosen.task == task
            result, again = segmenter.read(look), segmenter(colourful(40, 170), "person; sky; car", task=task)
            assert (result.labels == again.labels).all()
            assert result.to_dict() == again.to_dict()
        with pytest.raises(ValueError, match="tile"):
            segmenter.look(colourful(40, 50), "sky", task="semantic", tile=64)


def test_another_input_size_is_a_setting(tiny):
    segment = Segmenter(tiny)
    small = segment.look(colourful(60, 80), "sky; car", size=128)
    assert small.picture.pixels.shape == (3, 128, 128)
    assert small.chosen.to_dict()["size"] == 128
    assert segment.look(colourful(60, 80), "sky; car").picture.pixels.shape == (3, 256, 256)


@pytest.mark.parametrize("size", [33, 40, 100, 150])
def test_a_square_input_is_a_whole_number_of_cells(segment, segment_eov, size):
    with pytest.raises(ValueError, match=rf"size came as {size}; .* multiple of 16 pixels, such as {size // 16 * 16}"):
        segment(colourful(60, 80), "sky; car", size=size)
    assert segment(colourful(60, 80), "sky; car", size=size // 16 * 16).size == (60, 80)
    assert segment_eov(colourful(60, 80), "sky; car", size=size).size == (60, 80), "its input is padded"


def test_values_per_pixel_are_refused_of_an_instance_look(segment_eov):
    look = segment_eov.look(colourful(60, 80), "car", task="instance")
    with pytest.raises(ValueError, match="instances overlap"):
        segment_eov.read(look, per_pixel=True)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("keep", 0, "at least 1"),
        ("keep", 1.5, "a number of classes"),
        ("most", 65536, "at most 65535"),
        ("threshold", 1.01, "a probability"),
        ("threshold", None, "a probability"),
        ("overlap", -0.1, "a share"),
        ("background", "none", "'other'"),
        ("synonyms", "all", "'first', 'mean' or 'each'"),
        ("tile", 63, "at least 64, or 'auto'"),
        ("tile", "big", "at least 64, or 'auto'"),
        ("size", 31, "pixels, at least 32"),
    ],
)
def test_settings_validate_themselves(setting, value, expected):
    with pytest.raises(ValueError, match=f"{setting} came as .*{expected}"):
        wordmask.Settings(**{setting: value})


def test_numbers_of_other_libraries_become_plain():
    settings = wordmask.Settings(keep=np.int64(3), threshold=np.float32(0.5), tile=np.int16(64), most=np.uint8(7))
    plain = (settings.keep, settings.threshold, settings.tile, settings.most)
    assert [type(value) for value in plain] == [int, float, int, int]
    assert plain == (3, 0.5, 64, 7)


def test_one_word_takes_the_whole_picture(segment):
    result = segment(colourful(40, 50), "sky")
    assert (result.labels == 0).all()
    assert result.regions[0].area == 2000
    assert result.regions[0].runner_up is None


def test_threshold_leaves_pixels_unlabelled(segment):
    full = segment(colourful(40, 50), "sky; car", per_pixel=True)
    middle = float(np.median(full.confidence))
    cut = segment(colourful(40, 50), "sky; car", threshold=middle)
    np.testing.assert_array_equal(cut.labels == 255, full.confidence < middle)
    assert 0 < cut.unlabelled_area < 2000
    assert sum(region.area for region in cut.regions) + cut.unlabelled_area == 2000


def test_background_competes(segment):
    alone = segment(colourful(40, 50), "qwerty; asdf")
    against = segment(colourful(40, 50), "qwerty; asdf", background="other")
    assert alone.unlabelled_area == 0
    assert against.unlabelled_area > 0
    assert len(against.vocabulary) == 2
    assert against.labels.dtype == np.uint8, "distractors don't count"
    assert {region.name for region in against.regions} <= {"qwerty", "asdf"}


def test_distractors_leave_out_what_was_asked():
    everything = {entry.name for entry in Vocabulary.builtin(DISTRACTORS)}
    names = {
        entry.name for entry in distractors(Vocabulary.of("red cars; SKY; a wooden dining-table; wall; heavens, grass"))
    }
    gone = {"car", "sky", "dining table", "brick wall", "stone wall", "tile wall", "wood wall", "grass"}
    assert gone & everything
    assert not gone & names
    assert {"person", "dog", "tree", "bed"} <= names
    assert len(names) > 100


def test_nothing_may_be_left_to_compete(segment):
    vocabulary = Vocabulary.builtin(DISTRACTORS)
    assert distractors(vocabulary) == ()
    assert segment(colourful(20, 20), vocabulary, background="other").unlabelled_area == 0


@pytest.mark.parametrize("model", ["err-seg-tiny", "eov-seg-tiny"])
@pytest.mark.parametrize("count", [1, 2])
def test_pixels_lie_channels_last_and_say_the_same(model, count):
    one = [torch.randn(3, 64, 96, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]
    pixels, segmenter = stacked(one, torch.device("cpu")), wordmask.load(model, device="cpu", precision="float32")
    assert torch.equal(pixels, torch.stack(one))
    assert pixels.is_contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        words = segmenter.encode_words(Vocabulary.of(["grass", "sea", "hedgehog"]))
        found, expected = (segmenter.model(x, words) for x in (pixels, torch.stack(one)))
    for mine, other in zip(found, expected, strict=True):
        assert mine is other is None or torch.allclose(mine, other, rtol=1e-3, atol=1e-3)


def test_per_pixel_on_request(segment):
    plain = segment(colourful(40, 50), "sky; car; sea")
    assert plain.confidence is plain.runner_up is plain.runner_up_confidence is None
    full = segment(colourful(40, 50), "sky; car; sea", per_pixel=True)
    assert full.confidence.shape == full.runner_up.shape == full.runner_up_confidence.shape == (40, 50)
    assert (full.confidence >= full.runner_up_confidence).all()
    assert (full.runner_up != full.labels).all()


def test_keep_limits_the_classes(segment):
    words = [f"word {number}" for number in range(30)]
    result = segment(colourful(40, 50), words, keep=3)
    assert len(result.regions) <= 3
    assert result.settings.keep == 3
    assert segment(colourful(40, 50), words[:2], keep=30).settings.keep == 2


def test_synonyms_may_be_averaged(segment):
    first = segment(colourful(40, 50), "sky, heaven; car, automobile", per_pixel=True)
    mean = segment(colourful(40, 50), "sky, heaven; car, automobile", synonyms="mean", per_pixel=True)
    assert not np.allclose(first.confidence, mean.confidence)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_runs(tiny, precision):
    full = Segmenter(tiny)(colourful(40, 50), "sky; car", per_pixel=True)
    half = Segmenter(tiny, precision=precision)(colourful(40, 50), "sky; car", per_pixel=True)
    assert half.settings.precision == precision
    np.testing.assert_allclose(half.confidence, full.confidence, atol=0.05)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_runs_for_eov(tiny_eov, precision):
    """Sums over a mask's pixels overflow in half precision unless they are made in full."""
    words = "person; sky; car; grass; dog"
    for task in ("panoptic", "instance", "semantic"):
        full, half = (
            Segmenter(tiny_eov, precision=kind)(colourful(60, 90), words, task=task) for kind in ("float32", precision)
        )
        assert {region.name for region in half.regions} == {region.name for region in full.regions}
        assert (full.labels == half.labels).mean() > 0.9
        assert half.regions[0].score == pytest.approx(full.regions[0].score, abs=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": 0}, "at least 1"),
        ({"keep": 2.5}, "at least 1"),
        ({"keep": "2"}, "at least 1"),
        ({"threshold": "0.5"}, "expected a probability"),
        ({"threshold": None}, "expected a probability"),
        ({"threshold": 1.5}, "expected a probability"),
        ({"threshold": float("nan")}, "expected a probability"),
        ({"background": "sky"}, "expected 'other'"),
        ({"synonyms": "last"}, "expected 'first', 'mean' or 'each'"),
        ({"synonyms": "each"}, "one vector per class"),
        ({"overlap": -0.1}, "expected a share"),
        ({"most": 0}, "at least 1"),
        ({"task": "panoptic"}, "does semantic"),
        ({"task": "depth"}, "does semantic"),
    ],
)
def test_settings_that_make_no_sense(segment, settings, message):
    with pytest.raises(ValueError, match=message):
        segment(colourful(10, 10), "sky", **settings)


def test_devices_and_precisions():
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_precision("float16", torch.device("cpu")) == "float16"
    for unusable in ("gpu", "cuda:99", "tpu", "meta", "", None, 7.5):
        with pytest.raises(ValueError, match="cannot be used here"):
            choose_device(unusable)
    with pytest.raises(ValueError, match="expected one of auto"):
        choose_precision("float64", torch.device("cpu"))


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ({"avx2": True}, "float32"),
        ({"avx512_bf16": True}, "bfloat16"),
        ({"amx_bf16": True}, "bfloat16"),
        ({"amx_bf16": False}, "float32"),
    ],
)
def test_auto_is_bfloat16_where_the_processor_has_instructions_for_it(monkeypatch, found, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found, raising=False)
    assert choose_precision("auto", torch.device("cpu")) == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
def test_auto_is_bfloat16_on_gpus_that_multiply_it(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose_precision("auto", torch.device("cuda")) == expected


def test_settings_of_numpy_can_be_saved(segment, tmp_path):
    result = segment(colourful(20, 30), "sky; car", threshold=np.float32(0.25), keep=np.int64(2))
    result.save(tmp_path / "a")
    assert json.loads((tmp_path / "a.masks.json").read_text())["settings"]["threshold"] == 0.25
    assert repr(result) == "Segmentation(20×30, 2 of 2 classes, model='tiny')"


def test_labels_of_distractors_and_nothing_are_unlabelled():
    labels = as_labels(np.array([[0, 1, 2, 3, -1]]), words=2)
    assert labels.tolist() == [[0, 1, 255, 255, 255]]
    assert as_labels(np.array([[300, -1]]), words=400).tolist() == [[300, 65535]]


def test_words_are_encoded_once(tiny, own_cache, monkeypatch):
    segment = Segmenter(tiny, cache=own_cache)
    segment(colourful(10, 10), "sky; car")
    monkeypatch.setattr(tiny, "encode_text", lambda phrases: pytest.fail(f"encoded again: {phrases}"))
    segment(colourful(10, 10), "sky; car")
    Segmenter(tiny, cache=own_cache)(colourful(10, 10), "car; sky")


def test_the_background_is_gathered_once_for_many_pictures(tiny, monkeypatch):
    segment, calls, ordinary = Segmenter(tiny), [], background._stems
    background.distractors.cache_clear()
    monkeypatch.setattr(background, "_stems", lambda phrase: calls.append(phrase) or ordinary(phrase))
    segment(colourful(10, 10), "sky; car", background="other")
    once = len(calls)
    assert once > 2
    for settings in ({"background": "other"}, {"background": "other"}, {}):
        segment(colourful(10, 10), "sky; car", **settings)
    assert len(calls) == once


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (700, 2), (3, 5)])
def test_strange_sizes(segment, size):
    result = segment(colourful(*size), "sky; car; sea")
    assert result.size == size
    assert result.draw().width >= size[1]


# EOV-Seg --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def segment_eov(tiny_eov):
    return Segmenter(tiny_eov, name="tiny eov")


def test_three_tasks_of_one_model(segment_eov):
    """The same words and picture: a pixel's semantic label needs no segment, segments don't overlap, instances are
    things."""
    picture, words = colourful(60, 90), "person; sky; car; grass; dog"
    panoptic, instance, semantic = (
        segment_eov(picture, words, task=task) for task in ("panoptic", "instance", "semantic")
    )
    assert segment_eov(picture, words).task == panoptic.task == "panoptic", "its own task"
    assert panoptic.settings.to_dict().keys() == {"threshold", "overlap", "background", "synonyms", "precision"}
    assert instance.settings.to_dict().keys() == {"threshold", "most", "background", "synonyms", "precision"}
    assert semantic.settings.to_dict().keys() == {"threshold", "background", "synonyms", "precision"}
    assert panoptic.settings.synonyms == "each"
    assert semantic.unlabelled_area == 0
    assert panoptic.regions
    assert sum(region.area for region in panoptic.regions) + panoptic.unlabelled_area == 60 * 90
    stuff = [region.label for region in panoptic.regions if not region.thing]
    assert len(stuff) == len(set(stuff)), "stuff is merged"
    assert instance.regions
    assert all(region.thing for region in instance.regions)
    assert [region.score for region in instance.regions] == sorted(
        (region.score for region in instance.regions), reverse=True
    )
    for result in (panoptic, instance, semantic):
        assert all(0 < region.score <= 1 and region.runner_up != region.name for region in result.regions)


def test_thresholds_of_eov(segment_eov):
    picture, words = colourful(60, 90), "person; sky; car; grass; dog"
    few = segment_eov(picture, words, task="instance", most=5)
    assert len(few.regions) <= 5
    every = segment_eov(picture, words, task="instance")
    middle = every.regions[len(every.regions) // 2].score
    assert len(segment_eov(picture, words, task="instance", threshold=middle).regions) == len(
        [region for region in every.regions if region.score >= middle]
    )
    assert segment_eov(picture, words, threshold=1.0).regions == []
    loose, strict = (len(segment_eov(picture, words, overlap=overlap).regions) for overlap in (0.0, 1.0))
    assert loose >= len(segment_eov(picture, words).regions) >= strict


def test_background_competes_for_segments_and_instances(segment_eov):
    for task in ("panoptic", "instance", "semantic"):
        alone = segment_eov(colourful(40, 50), "qwerty; asdf", task=task)
        against = segment_eov(colourful(40, 50), "qwerty; asdf", task=task, background="other")
        assert {region.name for region in against.regions} <= {"qwerty", "asdf"}
        assert len(against.regions) <= len(alone.regions)
        assert all(region.runner_up in (None, "qwerty", "asdf") for region in against.regions)


def test_synonyms_of_eov(segment_eov):
    """Another name can only raise a class's logits under `each`; `mean` and `first` are one vector."""
    vocabulary = Vocabulary.of("sky, heaven; car, automobile, motor car")
    assert segment_eov.encode_words(vocabulary).owner.tolist() == [0, 0, 1, 1, 1]
    for synonyms in ("first", "mean"):
        assert segment_eov.encode_words(vocabulary, synonyms).owner.tolist() == [0, 1]


def test_seen_classes_follow_from_their_names(segment_eov, segment):
    vocabulary = Vocabulary.of("Dog; telescope; plane, airplanes; sky")
    assert segment_eov.encode_words(vocabulary).seen.tolist() == [True, False, True, True]
    assert segment.encode_words(vocabulary).seen.tolist() == [False] * 4, "makes no difference to ERR-Seg"


@pytest.mark.parametrize(
    ("words", "settings", "message"),
    [
        ("person", {"task": "depth"}, "does panoptic, instance, semantic"),
        ("person", {"keep": 3}, "keep says nothing to tiny eov for task 'panoptic'"),
        ("person", {"most": 3}, "most says nothing"),
        ("person", {"overlap": 0.5, "task": "semantic"}, "overlap says nothing"),
        ("person", {"per_pixel": True, "task": "instance"}, "no values per pixel"),
        ("sky; grass", {"task": "instance"}, r"no word is one: sky, grass. Write 'sky \[thing\]'"),
    ],
)
def test_what_eov_cannot_do(segment_eov, words, settings, message):
    with pytest.raises(ValueError, match=message):
        segment_eov(colourful(20, 20), words, **settings)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 2), (3, 5)])
def test_strange_sizes_of_eov(segment_eov, size):
    for task in ("panoptic", "instance", "semantic"):
        result = segment_eov(colourful(*size), "sky; car; sea", task=task)
        assert result.size == size
        assert result.draw().width >= size[1]


def test_a_batch_is_a_number_of_pictures(tiny):
    for batch in (0, -1, 2.5, "4"):
        with pytest.raises(ValueError, match="expected a number of pictures"):
            Segmenter(tiny, batch=batch)


def test_a_stream_is_what_the_pictures_give_one_by_one(tiny, tiny_eov):
    sizes = [(40, 50), (60, 40), (40, 50), (50, 40), (60, 40)]
    pictures = [colourful(*size, seed) for seed, size in enumerate(sizes)]
    for model in (tiny, tiny_eov):
        segment = Segmenter(model)
        for result, picture in zip(segment.stream(iter(pictures), "sky; car", per_pixel=True), pictures, strict=True):
            alone = segment(picture, "sky; car", per_pixel=True)
            np.testing.assert_array_equal(result.labels, alone.labels)
            np.testing.assert_array_equal(result.confidence, alone.confidence)
            np.testing.assert_array_equal(result.picture, picture)
            assert result.settings == alone.settings


def test_a_stream_has_no_end_and_looks_ahead_a_little(tiny):
    taken = []

    def endless():
        for seed in itertools.count():
            taken.append(seed)
            yield colourful(20 + 10 * (seed % 3), 30, seed)

    results = Segmenter(tiny, batch=4).stream(endless(), "sky; car")
    assert taken == [], "nothing is read before a result is asked for"
    for number in range(10):
        assert next(results).size == (20 + 10 * (number % 3), 30)
        assert len(taken) <= number + 1 + 3 * 4 + 2 * thread_count()
    results.close()


def test_a_bad_picture_in_a_stream_disturbs_no_other(segment, tmp_path):
    pictures = [colourful(20, 30), tmp_path / "missing.png", b"", colourful(20, 30, 1)]
    first, missing, empty, last = segment.stream(pictures, "sky; car")
    assert first.size == last.size == (20, 30)
    assert isinstance(missing, ValueError)
    assert "does not exist" in str(missing)
    assert "empty" in str(empty)
    with pytest.raises(ValueError, match="does not exist"):
        segment(pictures, "sky; car")


def test_a_picture_that_the_model_fails_at_disturbs_none_in_its_batch(tiny, monkeypatch):
    segment, ordinary = Segmenter(tiny, batch=3), Segmenter._run
    bad = colourful(20, 30, 1)

    def hungry(self, group, request):
        if any((ready.rgb == bad).all() for ready in group):
            raise torch.OutOfMemoryError("no memory for this")
        return ordinary(self, group, request)

    monkeypatch.setattr(Segmenter, "_run", hungry)
    results = list(segment.stream([colourful(20, 30, seed) for seed in range(4)], "sky; car"))
    assert [isinstance(result, torch.OutOfMemoryError) for result in results] == [False, True, False, False]


def test_words_of_a_stream_are_checked_at_once(segment):
    for words, settings, message in (("sky; sky", {}, "twice"), ("sky", {"threshold": 2}, "expected a probability")):
        with pytest.raises(ValueError, match=message):
            segment.stream([], words, **settings)
    assert list(segment.stream([], "sky")) == segment([], "sky") == []


def test_threads_get_their_own_words(tiny):
    """Two threads that ask one segmenter for different words, switched as often as can be."""
    segment, switch = Segmenter(tiny), sys.getswitchinterval()

    def right(names):
        vocabulary = Vocabulary.of(names)
        found = [segment._encode(vocabulary, "first", "none").vocabulary.names for _ in range(300)]
        return found.count(names)

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            assert list(pool.map(right, [["cup"], ["a", "b", "c"]])) == [300, 300]
    finally:
        sys.setswitchinterval(switch)
