"""Where on Earth a picture lies: read from GeoTIFFs, and written with label maps. Needs rasterio; without it nothing is
kept."""

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import TiffImagePlugin

from wordmask.decoded import quietly

GEOTIFF = (".tif", ".tiff")
GEO_KEYS = 34735  # GeoKeyDirectoryTag, OGC 19-008r4


class Georeference(NamedTuple):
    """A coordinate reference system, and the affine transform from pixels to it, both rasterio's."""

    crs: object
    transform: object


def read_georeference(source: str | None, size: tuple[int, int]) -> Georeference | None:
    """Read where a picture lies, if it says so.

    Args:
        source: Its file, if there is one.
        size: (height, width) as it was read; a picture that EXIF turned lies elsewhere.
    """
    if source is None or Path(source).suffix.lower() not in GEOTIFF or not _has_keys(Path(source)):
        return None
    try:
        import rasterio
        from rasterio.errors import RasterioError
    except ImportError:
        return None
    try:
        with rasterio.open(source) as raster:
            if raster.crs is None or raster.shape != size:
                return None
            return Georeference(raster.crs, raster.transform)
    except RasterioError:  # readable as a picture all the same
        return None


def _has_keys(path: Path) -> bool:
    """Look for GeoTIFF's tag: rasterio warns of every TIFF without one."""
    try:
        with path.open("rb") as file, quietly():
            header = file.read(8)
            header += file.read(8) if b"+" in header[2:4] else b""  # 43: BigTIFF
            directory = TiffImagePlugin.ImageFileDirectory_v2(header)
            file.seek(directory.next)
            directory.load(file)
            return GEO_KEYS in directory
    except (OSError, SyntaxError, struct.error):  # damaged, or no TIFF
        return False


def write_geotiff(path: Path, labels: np.ndarray, place: Georeference, unlabelled: int) -> None:
    """Write a label map, (H, W) uint8 or uint16, that lies where its picture does."""
    import rasterio

    height, width = labels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        compress="deflate",
        height=height,
        width=width,
        count=1,
        dtype=labels.dtype.name,
        crs=place.crs,
        transform=place.transform,
        nodata=unlabelled,
    ) as raster:
        raster.write(labels, 1)
