import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy import ndimage

from wordmask.batch.polygons import as_polygons
from wordmask.polygons import to_polygons


def area(polygon: np.ndarray) -> float:
    """Positive where the inside is on the right, y pointing down; holes count against it."""
    x, y = polygon.astype(float).T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def blobs(seed: int, grain: float) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).standard_normal((60, 80)), grain) > 0


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("grain", [0.3, 1, 4])
def test_outlines_enclose_the_mask_exactly(whole, grain):
    """Pieces, holes, pieces in holes, and pixels that touch at corners."""
    for seed in range(5):
        mask = blobs(seed, grain)
        polygons = as_polygons(mask, whole=whole, tolerance=0)
        assert sum(map(area, polygons)) == mask.sum()
        assert len(polygons) == (1 if whole else ndimage.label(mask)[1])
        simple = as_polygons(mask, whole=whole)
        assert sum(map(area, simple)) == pytest.approx(mask.sum(), rel=0.03)
        assert sum(map(len, simple)) <= sum(map(len, polygons))


def test_a_square_has_four_corners():
    mask = np.zeros((10, 12), bool)
    mask[2:5, 3:9] = True
    (polygon,) = as_polygons(mask, whole=True)
    assert sorted(map(tuple, polygon.tolist())) == [(3, 2), (3, 5), (9, 2), (9, 5)]
    assert as_polygons(np.zeros((5, 5), bool), whole=True) == as_polygons(np.zeros((5, 5), bool), whole=False) == []
    mask[3, 5] = False
    ((outer, hole),) = to_polygons(mask)
    assert len(outer) == len(hole) == 4, "the border, and a hole"


def test_filled_again_it_is_the_mask():
    mask = ndimage.binary_fill_holes(blobs(3, 6))
    canvas = Image.new("1", (80 * 4, 60 * 4))
    for polygon in as_polygons(mask, whole=False):
        ImageDraw.Draw(canvas).polygon([tuple(point) for point in (polygon * 4).tolist()], fill=1)
    filled = np.array(canvas)[2::4, 2::4]
    assert (filled & mask).sum() / (filled | mask).sum() > 0.96
