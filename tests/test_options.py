"""Options that several commands share: how a command gets them, and that what they offer is what there is."""

from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Annotated, get_args

import pytest
import typer
from typer.testing import CliRunner

from wordmask import options
from wordmask.batch.formats import FORMATS
from wordmask.cli import Format, app
from wordmask.hardware import Precision
from wordmask.model_choice import ModelChoice
from wordmask.options import ModelOptions, WordOptions, with_shared_options
from wordmask.settings import Settings

SHARING = ("segment", "batch", "explain")


@dataclass(frozen=True)
class Weather:
    sky: Annotated[str, typer.Option(help="What is above.")] = "grey"
    wind: Annotated[int, typer.Option("--wind", "-w")] = 3


def toy(**about) -> tuple[typer.Typer, list]:
    """A command that takes a dataclass between two options of its own, and what it was called with."""
    one, calls = typer.Typer(add_completion=False, rich_markup_mode=None), []

    @one.command()
    @with_shared_options(**about)
    def walk(place: str, *, weather: Weather, long: bool = False) -> None:
        """Go outside."""
        calls.append((place, weather, long))

    return one, calls


def test_a_dataclass_becomes_its_fields():
    walk, calls = toy()
    for arguments in (["park"], ["park", "--long", "-w", "7", "--sky", "blue"]):
        result = CliRunner().invoke(walk, arguments)
        assert result.exit_code == 0, result.output
    assert calls == [("park", Weather(), False), ("park", Weather("blue", 7), True)]
    help_text = CliRunner().invoke(walk, ["--help"]).output
    assert "Go outside." in help_text
    assert help_text.index("--sky") < help_text.index("--wind") < help_text.index("--long"), "where the parameter is"
    assert "What is above." in help_text
    assert "weather" not in help_text


def test_fields_left_out_keep_their_default():
    walk, calls = toy(without=("wind",))
    assert CliRunner().invoke(walk, ["park", "--sky", "blue"]).exit_code == 0
    assert calls == [("park", Weather("blue", 3), False)]
    assert CliRunner().invoke(walk, ["park", "--wind", "7"]).exit_code == 2


def test_two_options_of_one_name_are_refused():
    with pytest.raises(ValueError, match="duplicate parameter name: 'sky'"):

        @with_shared_options()
        def command(sky: int, *, weather: Weather) -> None: ...


def test_commands_say_the_same_of_what_they_share():
    commands = typer.main.get_command(app).commands
    said = [{param.name: (param.opts, param.help) for param in commands[name].params} for name in SHARING]
    shared = said[0].keys() & said[1].keys() & said[2].keys()
    assert {"words", "vocabulary", "model", "device", "keep", "threshold", "background", "synonyms"} <= shared
    for name in shared - {"arguments", "output"}:  # these are of each command
        assert said[0][name] == said[1][name] == said[2][name]
    assert {"task", "most", "tile"} == (said[0].keys() & said[1].keys()) - said[2].keys()


def test_choices_are_those_there_are():
    assert get_args(options.PrecisionName) == get_args(Precision)
    assert [str(name) for name in Format] == list(FORMATS)


def test_options_of_a_model_are_settings():
    given = ModelOptions(model="a", device="cpu", task="semantic", keep=3, threshold=0.5, background="other", tile="64")
    assert given.choice == ModelChoice("a", "cpu", "auto")
    assert given.settings == Settings(task="semantic", keep=3, threshold=0.5, background="other", tile=64)
    assert ModelOptions(tile="auto").settings.tile == "auto"
    assert ModelOptions().settings == Settings()
    for wrong in ("big", "12", "-64", "64.0", ""):
        with pytest.raises(ValueError, match="tile came as"):
            _ = ModelOptions(tile=wrong).settings


def test_every_setting_but_the_size_has_an_option():
    """The size of a model's input is for benchmarks."""
    assert set(signature(Settings).parameters) - {"size"} <= set(signature(ModelOptions).parameters)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (WordOptions(), ["road", "sky"]),
        (WordOptions(words="road; sky"), "road; sky"),
        (WordOptions(words_file=Path("words.txt")), Path("words.txt")),
        (WordOptions(vocabulary="ade20k-150"), "ade20k-150"),
    ],
)
def test_words_come_in_one_way(given, words):
    listed = words if isinstance(words, list) else []
    assert given.chosen(listed, after=["street.jpg"]) == words
    if not listed:
        with pytest.raises(ValueError, match=r"came in 2 ways: WORD\.\.\. 'road' and --"):
            given.chosen(["road"], after=["street.jpg"])
