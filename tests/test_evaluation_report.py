"""The report of an evaluation: its files are those that earlier versions wrote, key by key."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask

from conftest import colourful
from wordmask.data.labelled import LabelledPicture
from wordmask.data.shapeland import Shapeland
from wordmask.data.splits import SPLITS, Split
from wordmask.evaluation import outcome, protocols
from wordmask.evaluation.average_precision import Instance
from wordmask.evaluation.evaluate import EvaluationJob
from wordmask.evaluation.outcome import outcome_of
from wordmask.evaluation.protocols import Protocol
from wordmask.evaluation.rendering import markdown
from wordmask.evaluation.report import Conditions, EvaluationReport, PeakMemory
from wordmask.evaluation.scoring import Scores, only_things, present
from wordmask.segmenter import Segmenter
from wordmask.settings import Settings
from wordmask.vocabulary import Vocabulary

EXPECTED = Path(__file__).parent / "expected"
WORDS = Vocabulary.of("sky [stuff]; car; dog, puppy; grass [stuff]; horse")
CONDITIONS = Conditions(
    model="test",
    weights="0123456789abcdef",
    device="cpu, a machine",
    precision="float32",
    threads=2,
    processes=3,
    versions={"wordmask": "1", "torch": "2", "numpy": "3", "python": "4"},
    commit="abcdef0+",
    date="2026-01-02 03:04 UTC",
)


def count_picture(scores: Scores, tasks: tuple[str, ...], seed: int) -> None:
    """Score five blocks of a picture, some of whose pixels are found wrong."""
    random = np.random.default_rng(seed)
    segments = np.repeat(np.arange(6), 8)[None].repeat(10, 0)
    labels = random.permutation(len(WORDS) - 1)[random.integers(0, len(WORDS) - 1, 5)]
    picture = LabelledPicture(colourful(10, 48), segments, labels, np.zeros(5, bool), "made")
    target = present(picture)
    guess = np.where(
        random.random(segments.shape) < 0.3, random.integers(-1, len(WORDS), segments.shape), picture.semantic
    )
    if scores.folded is not None:
        guess = np.minimum(guess, scores.folded)
        picture = replace(picture, labels=np.minimum(labels, scores.folded))
    scores.semantic.update(guess, picture.semantic)
    scores.boundary.update(guess, picture.semantic)
    moved = np.roll(segments, seed + 1, axis=1)
    if "panoptic" in tasks:
        scores.panoptic.update(moved, labels, **target)
    if "instance" in tasks:
        found = [
            Instance(label, float(random.random()), mask.encode(np.asfortranarray(moved == number, np.uint8)))
            for number, label in enumerate(labels.tolist(), 1)
        ]
        scores.instance.update(seed, found, **only_things(target, scores.is_thing))
    scores.pictures.append(seed)
    scores.seconds.append(0.25 + 0.125 * seed)


def outcomes(segmenter: Segmenter) -> list:
    """A split of all tasks, with figures to compare; a folded one, of which a part was looked at; and nothing of it."""
    all_tasks = ("panoptic", "instance", "semantic")
    everything = EvaluationJob(
        "whole",
        Shapeland("shapeland-150", "test", 2),
        [0, 1],
        Protocol("these words", keep=4, synonyms="first", note="K as somewhere else"),
        WORDS,
        all_tasks,
        Settings(keep=4, synonyms="first", size=96),
    )
    folded = EvaluationJob(
        "folded",
        Shapeland("shapeland-150", "test", 3),
        [0],
        Protocol("those words", skipped=1, synonyms="mean", shrink=64),
        WORDS,
        ("semantic",),
        Settings(synonyms="mean"),
    )
    results = []
    for job, changed, seeds in ((everything, {}, (0, 1)), (folded, {"vocabulary": "those words", "shrink": 64}, (2,))):
        scores = Scores(job.tasks, WORDS, SPLITS[job.name].folded)
        for seed in seeds:
            count_picture(scores, job.tasks, seed)
        results.append(outcome_of(segmenter, job, scores, changed))
    unlooked = Scores(("semantic",), WORDS, SPLITS["folded"].folded)
    results.append(outcome_of(segmenter, folded, unlooked, {}))
    return results


@pytest.fixture
def made_report(tiny, monkeypatch) -> EvaluationReport:
    unseen = np.array([False, True, True, False, False])
    whole = Split("All of it", 2, Shapeland, tasks=("panoptic", "instance", "semantic"), unseen=lambda: unseen)
    monkeypatch.setitem(SPLITS, "whole", whole)
    monkeypatch.setitem(SPLITS, "folded", Split("Folded", 3, Shapeland, folded=3))
    figures = {"PQ": 40.5, "mIoU": 50.25, "nobody's": 1.0}
    monkeypatch.setitem(protocols.PUBLISHED, "test", ("A paper", {"whole": figures, "folded": {"mIoU": 1.5}}))
    monkeypatch.setattr(outcome, "memory_of", lambda segmenter: PeakMemory(machine_mib=512.5, gpu_mib=1024.0))
    return EvaluationReport(CONDITIONS, tuple(outcomes(Segmenter(tiny, name="test"))))


def rounded(text: str) -> str:
    """The same json, with its numbers to nine digits: sums of floats may differ in the last on another machine."""
    return json.dumps(json.loads(text, parse_float=lambda number: f"{float(number):.9g}"), indent=1, ensure_ascii=False)


def test_the_json_is_what_it_always_was(made_report):
    text = json.dumps(made_report.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    assert rounded(text) == rounded((EXPECTED / "evaluation_report.json").read_text(encoding="utf-8"))


def test_the_page_is_what_it_always_was(made_report):
    assert markdown(made_report) == (EXPECTED / "evaluation_report.md").read_text(encoding="utf-8")
