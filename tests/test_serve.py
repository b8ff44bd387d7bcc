"""The API as programs use it: what it answers, what it refuses and how, and that nobody disturbs another."""

import base64
import gc
import io
import json
import re
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from importlib.resources import files

import httpx
import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from conftest import colourful
from serving import Held, encoded, png, running
from test_polygons import filled
from wordmask import cli
from wordmask.memory import give_back_freed_memory, resident
from wordmask.segmenter import Segmenter
from wordmask.serve import worker
from wordmask.serve.answer import Answer
from wordmask.serve.application import PAGE, create_app
from wordmask.serve.limits import Gate, Limits, Refused
from wordmask.serve.question import Question
from wordmask.serve.server import create_server, is_loopback, load_all, run
from wordmask.settings import Settings

WORDS = ["sky", "car, automobile", "grass"]


@pytest.fixture(scope="module")
def segmenters(tiny, tiny_eov):
    return {"err": Segmenter(tiny, name="err", batch=4), "eov": Segmenter(tiny_eov, name="eov", batch=4)}


@pytest.fixture(scope="module")
def server(segmenters):
    with running(segmenters) as one:
        yield one


@pytest.fixture
def held(tiny):
    one = Held(tiny, name="err", batch=4)
    yield one
    one.go.set()


def in_the_background(call, *arguments, **details):
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call, *arguments, **details)
    pool.shutdown(wait=False)
    return future


def wait_until(condition) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def test_every_setting_that_can_be_asked_is_passed_on():
    asked = {
        "task": "instance",
        "keep": 3,
        "threshold": 0.25,
        "overlap": 0.5,
        "most": 7,
        "background": "other",
        "synonyms": "mean",
    }
    assert asked.keys() == Question.model_fields.keys() & {field.name for field in fields(Settings)}
    assert Question(**asked).settings == Settings(**asked)


def test_a_form_and_json_get_the_same_answer(server, segmenters):
    form = server.segment(words=WORDS)
    body = {"picture": base64.b64encode(png()).decode(), "words": WORDS}
    plain = server.client.post("/v1/segment", json=body)
    assert form.status_code == plain.status_code == 200
    assert form.json() == plain.json()
    data_url = server.client.post("/v1/segment", json=body | {"picture": "data:image/png;base64," + body["picture"]})
    assert data_url.json() == plain.json()
    answer = Answer.model_validate_json(form.content, strict=True)
    expected = segmenters["err"](png(), WORDS)
    assert [region.name for region in answer.regions] == [region.name for region in expected.regions]
    for region, wanted in zip(answer.regions, expected.regions, strict=True):
        np.testing.assert_array_equal(coco_mask.decode(region.segmentation.model_dump()), wanted.mask)
        assert region.score == pytest.approx(wanted.score)
        assert re.fullmatch("#[0-9a-f]{6}", region.colour)
    assert [entry.names for entry in answer.classes] == [["sky"], ["car", "automobile"], ["grass"]]


def test_words_in_one_string(server):
    together = server.segment(words="sky; car, automobile; grass")
    assert together.json() == server.segment(words=WORDS).json()
    assert len(server.segment(words=[], vocabulary="pascal-voc-20").json()["classes"]) == 20


def test_how_words_were_understood_is_said(server):
    for words, understood in (
        (["water, hedge"], "1 word: water, also called hedge — write ; between classes"),
        ("cat . dog", "1 word: cat . dog — write ; between classes"),
        ("sky\ngrass", None),
        (["cup, mug; spoon"], None),
    ):
        answer = server.segment(words=words)
        assert answer.status_code == 200
        assert answer.json().get("understood") == understood
        Answer.model_validate(answer.json())
    assert len(server.segment(words="0: sky\n1: grass").json()["classes"]) == 2
    for words in ("1: sky\n2: grass", '["sky", "grass"]', ["café", "cafe\u0301"]):
        assert server.segment(words=words).status_code == 422


def test_everything_that_can_be_sent_back(server, segmenters):
    answer = server.segment(
        model="eov", task="panoptic", masks="polygons", **{"return": "regions, labels,overlay,coco"}
    ).json()
    expected = segmenters["eov"](png(), WORDS)
    for region, wanted in zip(answer["regions"], expected.regions, strict=True):
        np.testing.assert_array_equal(filled(region["polygons"], (48, 64)), wanted.mask)
        assert "segmentation" not in region
    with Image.open(io.BytesIO(base64.b64decode(answer["labels"]))) as labels:
        np.testing.assert_array_equal(np.array(labels), expected.labels)
    with Image.open(io.BytesIO(base64.b64decode(answer["overlay"]))) as overlay:
        np.testing.assert_array_equal(np.array(overlay), np.array(expected.draw()))
    assert answer["coco"] == json.loads(json.dumps(expected.to_coco(file_name="garden.png")))
    bare = server.segment(masks="none", **{"return": ["regions"]}).json()
    assert not {"labels", "overlay", "coco"} & bare.keys()
    assert not {"segmentation", "polygons"} & bare["regions"][0].keys()


def test_the_picture_itself(server, segmenters):
    files, data = {"picture": png()}, {"words": WORDS, "return": "overlay"}
    answer = server.client.post("/v1/segment", files=files, data=data, headers={"Accept": "image/png"})
    assert answer.headers["content-type"] == "image/png"
    with Image.open(io.BytesIO(answer.content)) as overlay:
        np.testing.assert_array_equal(np.array(overlay), np.array(segmenters["err"](png(), WORDS).draw()))


def test_settings_reach_the_model(server):
    given = {
        "model": "eov",
        "task": "instance",
        "threshold": "0.25",
        "background": "other",
        "synonyms": "mean",
        "most": "7",
    }
    answer = server.segment(**given).json()
    assert answer["task"] == "instance"
    expected = {"threshold": 0.25, "background": "other", "synonyms": "mean", "most": 7, "precision": "float32"}
    assert answer["settings"] == expected
    assert server.segment(keep="2").json()["settings"]["keep"] == 2
    assert server.segment(threshold="", task="", keep="").status_code == 200, "as forms send what was left empty"


def test_turned_pictures_are_upright(server):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90°
    answer = server.segment(encoded(colourful(48, 64), "JPEG", exif=exif)).json()
    assert answer["size"] == {"height": 64, "width": 48}


def huge_png() -> bytes:
    """A header that claims 60 000 × 60 000 pixels, and no more."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", b"")
    )


@pytest.mark.parametrize(
    ("fields", "status", "message"),
    [
        ({"words": []}, 422, "No words"),
        ({"words": [" "]}, 422, "blank"),
        ({"words": ["car", "Car"]}, 422, "given twice"),
        ({"words": ["a", "\ud83d"]}, 422, ""),
        ({"words": [f"word {number}" for number in range(301)]}, 422, "301 words came"),
        ({"words": "a" * 501}, 422, "501 characters"),
        ({"words": "word " * 80}, 422, "CLIP reads 77"),
        ({"words": "a", "vocabulary": "ade20k-150"}, 422, "Leave one out"),
        ({"words": [], "vocabulary": "../secret"}, 422, "no vocabulary"),
        ({"words": [], "vocabulary": "shapeland-847"}, 422, "limit here is 300"),
        ({"model": "err-seg-base"}, 422, "here are err, eov"),
        ({"task": "panoptic"}, 422, "does semantic"),
        ({"task": "paint"}, 422, "task"),
        ({"threshold": "2"}, 422, "threshold"),
        ({"threshold": "nan"}, 422, "threshold"),
        ({"synonyms": "each"}, 422, "synonyms"),
        ({"overlap": "0.5"}, 422, "overlap says nothing"),
        ({"return": "everything"}, 422, "return"),
        ({"colour": "red"}, 422, "colour"),
        ({"picture": b""}, 422, "no picture that can be read"),
        ({"picture": b"milk, bread"}, 422, "no picture that can be read"),
        ({"picture": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"}, 422, "no picture that can be read"),
        ({"picture": png()[:300]}, 422, "damaged or ends early"),
        ({"picture": huge_png()}, 413, "million pixels"),
        ({"picture": encoded(np.zeros((5001, 5000), np.uint8))}, 413, "25 million pixels"),
        ({"picture": bytes(20_000_001)}, 413, "20 MB"),
        ({"picture": bytes(30_000_000)}, 413, "20 MB"),
    ],
)
def test_what_is_refused(server, fields, status, message):
    if fields.get("words") == ["a", "\ud83d"]:
        answer = server.client.post(
            "/v1/segment",
            content=b'{"picture": "", "words": ["\\ud83d"]}',
            headers={"content-type": "application/json"},
        )
    else:
        answer = server.segment(**fields)
    assert answer.status_code == status, answer.text
    assert message in answer.json()["detail"]
    assert server.service.gate.inside == 0
    assert server.segment().status_code == 200


@pytest.mark.parametrize(
    ("content", "kind", "status"),
    [
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b"", "", 415),
        (b"{", "application/json", 422),
        (b"[" * 100_000, "application/json", 422),
        (b"null", "application/json", 422),
        (b'{"picture": "\xc3\xa9", "words": "a"}', "application/json", 422),
        (b'{"picture": "aGVsbG8=", "words": "a", "threshold": "0.5"}', "application/json", 422),
        (b"no form", "multipart/form-data", 422),
        (b"no form", "multipart/form-data; boundary=x", 422),
        (
            b'--x\r\nContent-Disposition: form-data; name="words"\r\n\r\na\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            422,
        ),
    ],
)
def test_bodies_that_are_none(server, content, kind, status):
    answer = server.client.post("/v1/segment", content=content, headers={"content-type": kind})
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["detail"], str)


def test_words_are_never_files(server, tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("password")
    names = [entry["names"] for entry in server.segment(words=str(secret)).json()["classes"]]
    assert names == [[str(secret)]]


def test_nothing_is_written_to_the_disk(server, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a temporary file")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", refuse)
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    noise = np.random.default_rng(0).integers(0, 256, (1200, 1200, 3), dtype=np.uint8)
    content = encoded(noise)
    assert len(content) > 4 * 2**20, "beyond what a form's parser usually keeps in memory"
    assert server.segment(content).status_code == 200


def test_what_comes_together_goes_through_the_model_together(held):
    with running({"err": held}) as server, ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.segment, png())
        assert held.began.wait(20)
        same = [pool.submit(server.segment, png(seed=seed)) for seed in range(3)]
        others = [
            pool.submit(server.segment, png(), words=["sea"]),
            pool.submit(server.segment, png(), threshold="0.1"),
        ]
        wait_until(lambda: len(server.service.worker) == 5)
        held.go.set()
        answers = [future.result() for future in (first, *same, *others)]
        assert {answer.status_code for answer in answers} == {200}
        assert sorted(held.calls) == [1, 1, 1, 3]
        alone = Segmenter(held.model, name="err")
        for seed, future in enumerate(same):
            expected = alone(png(seed=seed), WORDS)
            assert [region["area"] for region in future.result().json()["regions"]] == pytest.approx(
                [region.area for region in expected.regions], abs=3
            )
        metrics = server.client.get("/metrics").text
        assert 'wordmask_batch_pictures_bucket{le="4"} 4' in metrics
        assert "wordmask_batch_pictures_sum 6.0" in metrics


def test_one_bad_request_disturbs_no_other(held):
    with running({"err": held}) as server, ThreadPoolExecutor(8) as pool:
        first = pool.submit(server.segment, png(9, 9))
        assert held.began.wait(20)
        contents = [png(seed=1), png()[:400], png(1, 1), png(seed=2)]
        futures = [pool.submit(server.segment, content) for content in contents]
        wait_until(lambda: len(server.service.worker) == 4)
        held.go.set()
        assert first.result().status_code == 200
        assert [future.result().status_code for future in futures] == [200, 422, 500, 200]
        assert "its log says how" in futures[2].result().json()["detail"]
        assert server.segment().status_code == 200, "and the server goes on"


def test_a_full_queue_says_when_to_come_again(held):
    with running({"err": held}, queue=2) as server:
        inside = [in_the_background(server.segment) for _ in range(2)]
        wait_until(lambda: server.service.gate.inside == 2)
        refused = server.segment(np.random.default_rng(0).bytes(10**6))
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "2 places" in refused.json()["detail"]
        assert server.client.get("/healthz").status_code == 200
        assert "wordmask_requests_under_way 2" in server.client.get("/metrics").text
        held.go.set()
        assert [future.result().status_code for future in inside] == [200, 200]
        assert server.segment().status_code == 200


def test_too_late_is_said_and_its_work_is_left_out(held):
    with running({"err": held}, seconds=0.5) as server:
        first = in_the_background(server.segment)
        assert held.began.wait(20)
        answers = [future.result() for future in (first, *(in_the_background(server.segment) for _ in range(2)))]
        assert [answer.status_code for answer in answers] == [503] * 3
        assert all("within 0.5 s" in answer.json()["detail"] and answer.headers["retry-after"] for answer in answers)
        held.go.set()
        wait_until(lambda: not len(server.service.worker))
        wait_until(lambda: server.segment(words="sea").status_code == 200)
        assert held.asked.count(["sky", "car", "grass"]) == held.calls[0] == 1, (
            "the first had begun, the other two never did"
        )


def test_who_leaves_is_not_worked_for(held):
    with running({"err": held}) as server:
        first = in_the_background(server.segment)
        assert held.began.wait(20)
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{server.url}/v1/segment", files={"picture": png()}, data={"words": "sea"}, timeout=0.3)
        wait_until(lambda: server.service.gate.inside == 1)
        held.go.set()
        assert first.result().status_code == 200
        assert server.segment().status_code == 200
        assert held.calls == [1, 1]


def test_rate(segmenters):
    with running(segmenters, rate=3) as server:
        answers = [server.segment() for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert 15 <= int(answers[-1].headers["retry-after"]) <= 20
        assert server.client.get("/v1/models").status_code == 200


def test_the_wait_that_is_told_is_enough_and_needed():
    gate = Gate(Limits(rate=60))
    for _ in range(60):
        gate.admit("a", 100.0)
    gate.admit("b", 100.0)
    with pytest.raises(Refused) as refused:
        gate.admit("a", 100.25)
    wait = int(refused.value.headers["Retry-After"])
    assert wait == 1
    gate.admit("a", 100.25 + wait)
    with pytest.raises(Refused):
        gate.admit("a", 100.25 + wait)
    for _ in range(60):
        gate.admit("a", 1000.0)


def test_few_clients_are_remembered(monkeypatch):
    monkeypatch.setattr("wordmask.serve.limits.MOST_CLIENTS", 5)
    gate = Gate(Limits(rate=1))
    for number in range(50):
        gate.admit(str(number), 0.0)
    assert len(gate._due) <= 5


def test_what_is_remembered_of_words_is_bounded(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(worker, "MOST_PHRASES", 10)
    monkeypatch.setattr(worker, "LARGEST_TEXT_CACHE", 10**5)
    segmenter = Segmenter(tiny, name="err", cache=tmp_path)
    with running({"err": segmenter}) as server:
        for start in range(0, 400, 100):
            assert server.segment(words=[f"word {start + number}" for number in range(100)]).status_code == 200
            assert len(segmenter.text.vectors) <= 100
    sizes = [path.stat().st_size for path in tmp_path.rglob("*.sqlite")]
    assert sum(sizes) < 3 * 10**5


def test_stopping_takes_nothing_new_and_finishes_what_it_has(held):
    with running({"err": held}) as server:
        under_way = in_the_background(server.segment)
        assert held.began.wait(20)
        server.service.gate.stopping = True  # as the first signal sets it
        refused = server.segment()
        assert refused.status_code == 503
        assert "about to stop" in refused.json()["detail"]
        assert refused.headers["retry-after"]
        assert server.client.get("/healthz").status_code == 503
        held.go.set()
        assert under_way.result().status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_signals(stop):
    command = [sys.executable, "-m", "wordmask", "serve", "--model", "eov-seg-tiny", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    url = process.stdout.readline().split()[0]
    large = encoded(colourful(3000, 4000), "JPEG")
    answer = in_the_background(
        httpx.post, f"{url}/v1/segment", files={"picture": large}, data={"words": ["sky", "car"]}, timeout=120
    )
    with httpx.Client(base_url=url) as client:
        wait_until(lambda: "under_way 1" in client.get("/metrics").text)
    process.send_signal(stop)
    assert answer.result().status_code == 200
    assert process.wait(30) == 0
    assert "Traceback" not in process.stderr.read()


def test_headers_keep_a_browser_at_home(server):
    for path in (*PAGE, "/openapi.json", "/v1/models", "/nowhere"):
        answer = server.client.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"], path
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert (
        "access-control-allow-origin"
        not in server.client.get("/v1/models", headers={"Origin": "http://elsewhere"}).headers
    )
    assert server.client.post("/v1/segment", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    refused = server.client.get("/v1/models", headers={"Host": "evil.example:80"})
    assert refused.status_code == 400
    known = "localhost, 127.0.0.1, [::1]"
    assert refused.json()["detail"] == f"The host came as 'evil.example'; expected one of {known}."
    assert server.client.get("/v1/models", headers={"Host": "localhost:1"}).status_code == 200
    assert server.client.get("/../../pyproject.toml").status_code == 404
    assert server.client.put("/v1/segment").status_code == 405


def test_the_page_names_no_other_host():
    for file, _ in PAGE.values():
        text = files("wordmask.serve").joinpath("page", file).read_text()
        assert not re.sub(r'xmlns="http://www\.w3\.org/2000/svg"', "", text).count("//www."), file
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text), file
        assert "style=" not in text, "the content security policy forbids it"
        assert not re.search(r"<script(?![^>]*src=)| on\w+=\"", text)


def test_models_samples_and_metrics(server):
    about = server.client.get("/v1/models").json()
    assert [model["name"] for model in about["models"]] == ["err", "eov"]
    assert about["models"][1]["tasks"] == ["panoptic", "instance", "semantic"]
    assert about["limits"]["words"] == 300
    sample = server.client.get("/v1/samples/7").json()
    assert server.segment(base64.b64decode(sample["picture"]), words=sample["words"]).status_code == 200
    assert server.client.get("/v1/samples/-1").status_code == 422
    assert server.client.get("/v1/samples/7").json() == sample
    lines = server.client.get("/metrics").text.splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    assert int(values['wordmask_requests_total{path="/v1/segment",status="200"}']) >= 1
    assert float(values['wordmask_model_seconds_total{model="err"}']) > 0
    assert values['wordmask_segment_seconds_bucket{le="+Inf"}'] == values["wordmask_segment_seconds_count"]
    assert all(re.fullmatch(r'[a-z_]+(\{\w+="[^"]*"(,\w+="[^"]*")*\})?', name) for name in values)


def test_several_models_have_several_names(tmp_path):
    with pytest.raises(ValueError, match="Two models go by the name"):
        load_all(["err-seg-untrained", "err-seg-untrained"], device="cpu", precision="auto", batch=1)


def test_addresses(segmenters):
    assert is_loopback("127.0.0.1")
    assert is_loopback("localhost")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("example.org")
    with running(segmenters) as one:
        taken = int(one.url.rsplit(":", 1)[1])
        with pytest.raises(ValueError, match="can't be had"):
            run(create_server(segmenters, Limits(), host="127.0.0.1", port=taken), print)


def test_what_is_missing_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "wordmask.serve.server")
    monkeypatch.setattr(sys, "argv", ["wordmask", "serve"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert "pip install 'wordmask[serve]'" in capsys.readouterr().err


CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


def fuzzed(examples: int):
    return settings(
        max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
    )


@pytest.mark.parametrize("examples", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_any_request_is_answered_as_documented(segmenters, examples):
    schema = schemathesis.openapi.from_asgi("/openapi.json", create_app(segmenters, Limits(rate=0)))
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {operation.path for operation in operations} == {
        "/v1/segment",
        "/v1/models",
        "/v1/samples/{number}",
        "/healthz",
        "/metrics",
    }
    for operation in operations:

        @given(case=operation.as_strategy())
        @fuzzed(examples)
        def ask(case):
            case.call_and_validate(checks=CHECKS)

        ask()


FIELDS = st.fixed_dictionaries(
    {"words": st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=5)},
    optional={
        "model": st.sampled_from(["err", "eov"]),
        "task": st.sampled_from(["semantic", "panoptic", "instance"]),
        "threshold": st.floats(0, 1),
        "background": st.just("other"),
        "synonyms": st.sampled_from(["first", "mean", "each"]),
        "keep": st.integers(1, 70_000),
        "overlap": st.floats(0, 1),
        "most": st.integers(1, 1001),
        "masks": st.sampled_from(["rle", "polygons", "none"]),
        "return": st.lists(st.sampled_from(["regions", "labels", "overlay", "coco"]), min_size=1, max_size=4),
    },
)


@given(fields=FIELDS, size=st.tuples(st.integers(1, 40), st.integers(1, 40)))
@fuzzed(15)
def test_any_settings_give_a_result_or_a_reason(server, fields, size):
    body = {"picture": base64.b64encode(png(*size)).decode(), **fields}
    answer = server.client.post("/v1/segment", content=json.dumps(body), headers={"content-type": "application/json"})
    assert answer.status_code in (200, 422), answer.text
    if answer.status_code == 200:
        Answer.model_validate_json(answer.content, strict=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read as Linux tells it")
@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"queue": 12}, {"rate": 30}, {}], ids=["short queue", "low rate", "no limit"])
def test_load(segmenters, limits):
    """200 requests from 16 clients: each gets a result or an honest refusal, and the memory comes back."""
    contents = [encoded(colourful(120, 160, seed), "JPEG") for seed in range(8)]

    def ask(number: int) -> httpx.Response:
        fields = {
            "words": WORDS,
            "model": ("err", "eov")[number % 2],
            "return": ["regions", "overlay"][number % 3 == 0],
        }
        return server.client.post("/v1/segment", data=fields, files={"picture": contents[number % 8]})

    with running(segmenters, **limits) as server, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(ask, range(40)))
        gc.collect()
        # what is lost is lost every time; the first kernels of a shape, and what the allocator keeps, are not
        for _ in range(4):
            give_back_freed_memory()
            before = resident("VmRSS")
            answers += pool.map(ask, range(200))
            assert server.service.gate.inside == len(server.service.worker) == 0
            gc.collect()
            give_back_freed_memory()
            grown = resident("VmRSS") - before
            if grown < 60 * 2**20:
                break
        else:
            pytest.fail(f"{(resident('VmRSS') - before) / 2**20:.0f} MB more after each 200 requests")
    statuses = Counter(answer.status_code for answer in answers)
    assert statuses.keys() <= {200, 429, 503}
    assert statuses[200] == len(answers) if not limits else statuses[200] >= 12, statuses
    assert "rate" not in limits or statuses[429] >= 100, statuses
    assert all(answer.headers["retry-after"] for answer in answers if answer.status_code != 200)
    assert all({"regions", "overlay"} & answer.json().keys() for answer in answers if answer.status_code == 200)
