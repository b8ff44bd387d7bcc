"""What a type checker knows of the public surface: everything."""

import json
import subprocess
import sys

import pytest

PUBLIC = ("segmenter", "segmentation", "settings", "vocabulary", "words", "regions", "image", "pixels", "raw", "text")
SURFACE = ("wordmask.load", "wordmask.Seg", "wordmask.Settings", "wordmask.Vocabulary", "wordmask.models.model.")


@pytest.mark.slow
def test_the_public_surface_is_known():
    """Every symbol of the names that `import wordmask` offers, and of the modules that their signatures speak of."""
    command = [sys.executable, "-m", "pyright", "--verifytypes", "wordmask", "--ignoreexternal", "--outputjson"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    symbols = json.loads(done.stdout)["typeCompleteness"]["symbols"]
    surface = (*SURFACE, *(f"wordmask.{module}." for module in PUBLIC))
    named = [symbol for symbol in symbols if symbol["isExported"] and symbol["name"].startswith(surface)]
    assert len(named) > 200
    assert [symbol["name"] for symbol in named if not symbol["isTypeKnown"]] == []
