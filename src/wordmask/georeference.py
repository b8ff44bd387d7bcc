"""Where on Earth a picture lies: read from GeoTIFFs, and written with label maps. Needs rasterio; without it nothing is kept."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

GEOTIFF = (".tif", ".tiff")


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
    if source is None or Path(source).suffix.lower() not in GEOTIFF:
        return None
    try:
        import rasterio
    except ImportError:
        return None
    try:
        with rasterio.open(source) as raster:
            if raster.crs is None or raster.shape != size:
                return None
            return Georeference(raster.crs, raster.transform)
    except rasterio.errors.RasterioError:  # readable as a picture all the same
        return None


def write_geotiff(path: Path, labels: np.ndarray, place: Georeference, unlabelled: int) -> None:
    """Write a label map, (H, W) uint8 or uint16, that lies where its picture does."""
    import rasterio

    height, width = labels.shape
    form = {"driver": "GTiff", "compress": "deflate", "height": height, "width": width, "count": 1, "dtype": labels.dtype.name}
    with rasterio.open(path, "w", crs=place.crs, transform=place.transform, nodata=unlabelled, **form) as raster:
        raster.write(labels, 1)
