"""Large pictures: tiles that cover, blend and forget; and what they give equals what the whole picture gives."""

import json
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from conftest import colourful
from wordmask.image import Frame
from wordmask.pixels import ImageInput
from wordmask.raw import ClassMaps
from wordmask.segmenter import Segmenter
from wordmask.tiles import ClassTile, Grid, QueryTile, read_tiles


@pytest.mark.parametrize(
    ("picture", "side"), [((100, 300), 64), ((64, 65), 64), ((10, 500), 64), ((1000, 777), 96), ((129, 130), 64)]
)
def test_tiles_cover_the_picture_and_weigh_one_in_sum(picture, side):
    grid = Grid.over(picture, side)
    total = torch.zeros(picture)
    for row in range(len(grid.starts[0])):
        for column, box in enumerate(grid.boxes(row)):
            assert total[box].shape == grid.tile
            total[box] += torch.outer(grid.weights[0][row], grid.weights[1][column])
    torch.testing.assert_close(total, torch.ones(picture))
    for starts, length in zip(grid.starts, grid.tile, strict=True):
        overlaps = [before + length - after for before, after in pairwise(starts)]
        assert all(overlap >= length // 4 - 1 for overlap in overlaps)


def constant(probability: float, classes: list[int], frame: Frame) -> ClassTile:
    return ClassTile(torch.full((len(classes), 16, 16), probability), torch.tensor(classes), frame)


def test_a_class_that_a_tile_does_not_keep_has_no_probability_there():
    grid, frame = Grid.over((64, 112), 64), Frame((64, 64))
    assert grid.starts == ([0], [0, 48])
    reading = read_tiles(grid, lambda row: [constant(0.8, [5], frame), constant(0.6, [2, 7], frame)], classes=9)
    assert (reading.best[:, :48] == 5).all()
    assert (reading.best[:, 64:] == 2).all(), "the first of equals"
    assert (reading.runner_up[:, 64:] == 7).all()
    torch.testing.assert_close(reading.confidence[:, :48], torch.full((64, 48), 0.8))
    middle = reading.confidence[0, 48:64]
    weights = grid.weights[1][0, 48:]
    torch.testing.assert_close(middle, torch.maximum(0.8 * weights, 0.6 * (1 - weights)))


def test_queries_of_all_tiles_are_summed():
    """Every tile's sum over its queries, averaged: here 0.9 · 0.5 on the left, 0.7 · 0.5 on the right."""
    grid, frame = Grid.over((64, 112), 64), Frame((64, 64))
    tiles = [QueryTile(torch.zeros(1, 16, 16), torch.tensor([[0.1, share]]), frame) for share in (0.9, 0.7)]
    reading = read_tiles(grid, lambda row: tiles, classes=2)
    assert (reading.best == 1).all()
    weights = grid.weights[1][0, 48:]
    torch.testing.assert_close(reading.confidence[3, 48:64], 0.45 * weights + 0.35 * (1 - weights))
    torch.testing.assert_close(reading.runner_up_confidence, torch.full((64, 112), 0.05))


class Local(nn.Module):
    """Says of every pixel what its neighbourhood looks like, at 1/4 of the input: what an ideal model would make of
    tiles."""

    family, vocabularies, training_vocabulary = "local", "err-seg", ""
    tasks, templates, synonyms, keep_steps = ("semantic",), ("{}",), "first", ()
    image_input = ImageInput(128, 10_000, None, mean=(128, 128, 128), std=(50, 50, 50))

    def __init__(self):
        super().__init__()
        self.colours = nn.Parameter(torch.randn(6, 3, 9, 9, generator=torch.Generator().manual_seed(0)) / 9)

    def encode_text(self, phrases):
        return F.normalize(torch.ones(len(phrases), 4), dim=1)

    def forward(self, pixels, words):
        logits = F.avg_pool2d(F.conv2d(pixels, self.colours, padding=4), 4)
        kept = torch.arange(6).expand(len(pixels), 6)
        return ClassMaps(logits, kept, logits.mean(dim=(2, 3)))


def test_tiled_equals_untiled():
    """A picture whose shorter side is the model's input: the same scale both ways."""
    segment, picture = Segmenter(Local(), text_tower="0" * 16), colourful(128, 640)
    whole, tiled = (segment(picture, "a; b; c; d; e; f", tile=tile, per_pixel=True) for tile in (None, "auto"))
    inner = slice(8, -8), slice(8, -8)
    assert len(np.unique(whole.labels[inner])) > 3
    assert (whole.labels == tiled.labels)[inner].mean() >= 0.99
    np.testing.assert_allclose(whole.confidence[inner], tiled.confidence[inner], atol=0.05)
    assert tiled.settings.to_dict()["tile"] == "auto"


def test_a_tile_as_large_as_the_picture_changes_nothing(tiny, tiny_eov):
    for model in (tiny, tiny_eov):
        segment = Segmenter(model)
        whole, tiled = (
            segment(colourful(60, 90), "sky; car", task="semantic", tile=tile, per_pixel=True) for tile in (None, 90)
        )
        np.testing.assert_array_equal(whole.labels, tiled.labels)
        np.testing.assert_array_equal(whole.confidence, tiled.confidence)


def test_tiles_of_both_models(tiny, tiny_eov):
    """Batches of tiles give what single ones give; values per pixel are in range; classes kept may differ from tile to
    tile."""
    words = [f"word {number}" for number in range(30)]
    for model, keep in ((tiny, 3), (tiny_eov, None)):
        settings = {"task": "semantic", "tile": 64, "keep": keep, "per_pixel": True}
        one, many = (Segmenter(model, batch=batch)(colourful(150, 200), words, **settings) for batch in (1, 4))
        assert one.size == (150, 200)
        assert (one.labels == many.labels).mean() > 0.999
        assert (one.confidence >= one.runner_up_confidence).all()
        assert one.runner_up_confidence.min() >= 0
        assert one.confidence.max() <= 1
        assert sum(region.area for region in one.regions) == 150 * 200


def test_a_stream_takes_tiles(tiny):
    pictures = [colourful(150, 100), b"", colourful(30, 40)]
    results = list(Segmenter(tiny).stream(pictures, "sky; car", tile=64))
    assert [getattr(result, "size", None) for result in results] == [(150, 100), None, (30, 40)]
    assert isinstance(results[1], ValueError)


@pytest.mark.parametrize(
    ("tile", "message"), [(63, "at least 64"), ("640", "or 'auto'"), (100.5, "at least 64"), (-1, "at least 64")]
)
def test_tiles_that_make_no_sense(tiny, tile, message):
    with pytest.raises(ValueError, match=message):
        Segmenter(tiny)(colourful(10, 10), "sky", tile=tile)


def test_segments_are_not_cut_by_tiles(tiny_eov):
    for task in ("panoptic", "instance", None):
        with pytest.raises(ValueError, match="tile works for the task 'semantic'"):
            Segmenter(tiny_eov)(colourful(10, 10), "person", tile=64, task=task)


def test_georeferencing_is_kept(tiny, tmp_path):
    rasterio = pytest.importorskip("rasterio")
    from rasterio.transform import from_origin

    place = {"crs": "EPSG:32633", "transform": from_origin(500_000, 5_200_000, 0.5, 0.5)}
    with rasterio.open(
        tmp_path / "field.tif", "w", driver="GTiff", height=80, width=120, count=3, dtype="uint8", **place
    ) as raster:
        raster.write(np.moveaxis(colourful(80, 120), -1, 0))
    result = Segmenter(tiny)(tmp_path / "field.tif", "sky; car", tile=64)
    paths = result.save(tmp_path / "out" / "field")
    assert tmp_path / "out" / "field.labels.tif" in paths
    with rasterio.open(tmp_path / "out" / "field.labels.tif") as raster:
        assert raster.crs == rasterio.crs.CRS.from_epsg(32633)
        assert raster.transform == place["transform"]
        assert raster.nodata == 255
        np.testing.assert_array_equal(raster.read(1), result.labels)
    Image.fromarray(colourful(80, 120)).save(tmp_path / "plain.tif")
    names = [path.name for path in Segmenter(tiny)(tmp_path / "plain.tif", "sky; car").save(tmp_path / "out" / "plain")]
    assert "plain.labels.tif" not in names


LARGE = """
import json, resource, sys
import numpy as np
from PIL import Image
import wordmask
segment = wordmask.load("err-seg-untrained")
segment("small.png", "sky; grass; car; sea")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
segment("large.png", "sky; grass; car; sea", tile=1024).save("large")
print(json.dumps((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20))
"""


@pytest.mark.slow
def test_a_picture_of_100_megapixels_needs_less_than_4_gb(tmp_path):
    Image.fromarray(colourful(50, 50)).save(tmp_path / "small.png")
    Image.fromarray(colourful(500, 500)).resize((10_000, 10_000)).save(tmp_path / "large.png", compress_level=1)
    done = subprocess.run([sys.executable, "-c", LARGE], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) < 4
