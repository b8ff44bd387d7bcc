"""What training shows of a picture: another scale, a crop, a mirror image, other colours; its segments go along.

Each augmentation is a call `augment(labelled, generator)`, and every random number comes from that generator. The
picture has one map of segments, so nothing is ever resized once per mask. Segments that a crop leaves out stay listed,
without pixels.

Sources: detectron2 @ 32bd159, data/transforms/augmentation_impl.py, and @ 405ef0d, PointRend's color_augmentation.py.
Order and numbers: ERR-Seg @ 6e79c0d, configs/convnext{B,L}_640.yaml, with the dataset mapper that it has from CAT-Seg
(@ dc295ee); EOV-Seg @ 9d76413, configs/Base-COCO-PanopticSegmentation.yaml, with the one that it has from Mask2Former
(@ 161be51). Where we differ: segments are resized about the centres of pixels, like the picture (the mapper of ERR-Seg
takes corners, which moves labels by up to half a pixel); colours are rounded once, not cut to whole numbers after every
step, and hue and saturation are not cut to 8 bits.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from wordmask.data.labelled import LabelledPicture
from wordmask.pixels import shortest_edge_size

GREY = 128  # the colour of padding, for both papers
LARGEST_COLOUR = 255
HUE_STEPS = 180  # of a full turn, as OpenCV counts hue
TINY = np.float32(1e-6)  # instead of dividing by the chroma of grey, 0


@dataclass(frozen=True)
class ColourJitter:
    """The colour changes of SSD: each with probability ½, contrast before or after saturation and hue.

    Args:
        brightness: At most added to, or taken from, each channel, of 255.
        contrast: Lowest and highest factor of each channel.
        saturation: Lowest and highest factor.
        hue: At most turned either way, of 180 for a full turn.
    """

    brightness: float = 32.0
    contrast: tuple[float, float] = (0.5, 1.5)
    saturation: tuple[float, float] = (0.5, 1.5)
    hue: int = 18

    def __call__(self, rgb: UInt8[np.ndarray, "H W 3"], generator: np.random.Generator) -> UInt8[np.ndarray, "H W 3"]:
        """Change the colours of a picture."""
        steps = [self._saturation, self._hue]
        steps.insert(0 if generator.integers(2) else len(steps), self._contrast)
        # numpy is slow along an axis of three
        colours = np.moveaxis(rgb, -1, 0).astype(np.float32, order="C")  # (3, H, W)
        for step in (self._brightness, *steps):
            if generator.integers(2):
                colours = np.clip(step(colours, generator), 0, LARGEST_COLOUR)
        return np.ascontiguousarray(np.moveaxis(np.rint(colours).astype(np.uint8), 0, -1))

    def _brightness(self, colours: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return colours + np.float32(generator.uniform(-self.brightness, self.brightness))

    def _contrast(self, colours: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return colours * np.float32(generator.uniform(*self.contrast))

    def _saturation(self, colours: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return scale_saturation(colours, generator.uniform(*self.saturation))

    def _hue(self, colours: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        return turn_hue(colours, generator.integers(-self.hue, self.hue, endpoint=True) / HUE_STEPS)


@dataclass(frozen=True)
class CropAugmentation:
    """ERR-Seg's: resize, crop at random, change the colours, mirror half of the pictures, pad what is smaller than the
    crop.

    The crop may fall anywhere: a limit on the share of one class (SINGLE_CATEGORY_MAX_AREA) is 1.0 in the reference's
    files: off.

    Args:
        shortest_edge: Pixels; the paper's is 640 …
        longest_edge: … unless the longer edge would exceed this; 1333.
        crop: Side of the square that comes out, pixels; 640.
        colours: None leaves them.
    """

    shortest_edge: int
    longest_edge: int
    crop: int
    colours: ColourJitter | None = ColourJitter()

    def __post_init__(self):
        _check_positive(self.shortest_edge, self.longest_edge, self.crop)

    def __call__(self, labelled: LabelledPicture, generator: np.random.Generator) -> LabelledPicture:
        """Draw one view, crop × crop."""
        size = shortest_edge_size(*labelled.rgb.shape[:2], shortest=self.shortest_edge, longest=self.longest_edge)
        labelled = resize(labelled, size)
        top, left = (int(generator.integers(max(0, edge - self.crop), endpoint=True)) for edge in size)
        labelled = crop(labelled, (top, left), self.crop)
        if self.colours is not None:
            labelled = replace(labelled, rgb=self.colours(labelled.rgb, generator))
        return pad(flip_half(labelled, generator), self.crop)


@dataclass(frozen=True)
class ScaleAugmentation:
    """EOV-Seg's: mirror half of the pictures, fit each into a square of random size (large-scale jitter), crop or pad
    to a fixed one.

    One random number places the crop along both axes, as the reference does.

    Args:
        side: The square that comes out, pixels; the paper's is 1024.
        smallest: The smallest side of the random square, times `side`; 0.1.
        largest: Its largest side, likewise; 2.0.
    """

    side: int
    smallest: float
    largest: float

    def __post_init__(self):
        _check_positive(self.side, self.smallest, self.largest)
        if self.smallest > self.largest:
            raise ValueError(f"The smallest scale, {self.smallest}, is above the largest, {self.largest}. Swap them.")

    def __call__(self, labelled: LabelledPicture, generator: np.random.Generator) -> LabelledPicture:
        """Draw one view, side × side."""
        labelled = flip_half(labelled, generator)
        height, width = labelled.rgb.shape[:2]
        factor = self.side * generator.uniform(self.smallest, self.largest) / max(height, width)
        size = max(1, round(height * factor)), max(1, round(width * factor))
        place = generator.uniform()
        top, left = (round(max(0, edge - self.side) * place) for edge in size)
        return pad(crop(resize(labelled, size), (top, left), self.side), self.side)


def resize(labelled: LabelledPicture, size: tuple[int, int]) -> LabelledPicture:
    """Resize to (height, width): the picture bilinear and antialiased on 8 bits, segments to the nearest."""
    height, width = size
    rgb = Image.fromarray(labelled.rgb).resize((width, height), Image.Resampling.BILINEAR)
    segments = Image.fromarray(labelled.segments.astype(np.int32)).resize((width, height), Image.Resampling.NEAREST)
    return replace(labelled, rgb=np.array(rgb), segments=np.array(segments, labelled.segments.dtype))


def crop(labelled: LabelledPicture, corner: tuple[int, int], side: int) -> LabelledPicture:
    """Cut out a square, or what there is of it, from `corner` (top, left) on: a view."""
    top, left = corner
    window = slice(top, top + side), slice(left, left + side)
    return replace(labelled, rgb=labelled.rgb[window], segments=labelled.segments[window])


def pad(labelled: LabelledPicture, side: int) -> LabelledPicture:
    """Copy, filled up to a square at the right and the bottom: the picture with grey, the segments with 0."""
    height, width = labelled.segments.shape
    missing = ((0, max(0, side - height)), (0, max(0, side - width)))
    rgb = np.pad(labelled.rgb, (*missing, (0, 0)), constant_values=GREY)
    return replace(labelled, rgb=rgb, segments=np.pad(labelled.segments, missing))


def flip(labelled: LabelledPicture) -> LabelledPicture:
    """Swap left and right: a view."""
    return replace(labelled, rgb=labelled.rgb[:, ::-1], segments=labelled.segments[:, ::-1])


def flip_half(labelled: LabelledPicture, generator: np.random.Generator) -> LabelledPicture:
    """Flip with probability ½."""
    return flip(labelled) if generator.integers(2) else labelled


def scale_saturation(colours: Float32[np.ndarray, "3 H W"], factor: float) -> Float32[np.ndarray, "3 H W"]:
    """Multiply saturation (of HSV, at most 1) and keep hue and value. Colours are in 0–255.

    With the value V, the largest channel, held, saturation is (V − smallest) / V, and every channel's distance from V
    grows with it.
    """
    value, chroma = _value_and_chroma(colours)
    # the factor at which saturation reaches 1
    most = np.divide(value, chroma, out=np.ones_like(value), where=chroma > 0)
    return value - (value - colours) * np.minimum(most, np.float32(factor))


def turn_hue(colours: Float32[np.ndarray, "3 H W"], turn: float) -> Float32[np.ndarray, "3 H W"]:
    """Add to hue (of HSV), in full turns, and keep saturation and value. Colours are in 0–255."""
    value, chroma = _value_and_chroma(colours)
    red, green, blue = colours
    is_red, is_green = value == red, value == green
    sixths = np.where(is_red, green - blue, np.where(is_green, blue - red, red - green)) / np.maximum(chroma, TINY)
    sixths += np.where(is_red, np.float32(0), np.where(is_green, np.float32(2), np.float32(4)))
    turned = np.empty_like(colours)
    # where on the circle of six red, green and blue fall below the value
    for channel, start in zip(turned, (5, 3, 1), strict=True):
        place = (sixths + np.float32(start + 6 * turn)) % np.float32(6)
        channel[:] = value - chroma * np.clip(np.minimum(place, 4 - place), 0, 1)
    return turned


def _value_and_chroma(
    colours: Float32[np.ndarray, "3 H W"],
) -> tuple[Float32[np.ndarray, "H W"], Float32[np.ndarray, "H W"]]:
    value = colours.max(axis=0)
    return value, value - colours.min(axis=0)


def _check_positive(*numbers: float | int) -> None:
    if min(numbers) <= 0:
        raise ValueError(f"An augmentation was given {min(numbers)}; its sizes and scales must be above 0.")
