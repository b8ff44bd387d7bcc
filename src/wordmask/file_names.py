"""Words told from names of files, by how they are written.

Needs the standard library alone, and nothing else of wordmask: `wordmask export` copies this file beside the graphs.
"""

import re

PICTURE_ENDINGS = {
    *("jpg", "jpeg", "jpe", "jfif", "png", "webp", "bmp", "gif"),
    *("tif", "tiff", "ppm", "pgm", "jp2", "avif", "heic", "heif", "hif"),
}
# what else people have beside pictures
FILE_ENDINGS = {
    *PICTURE_ENDINGS,
    *("apng", "dib", "pbm", "pnm", "j2k", "jpx", "hif", "jxl", "ico", "svg", "psd", "tga", "dcm", "dicom", "exr"),
    *("dng", "nef", "cr2", "cr3", "arw", "orf", "rw2", "raf", "hdr"),
    *("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "mts", "m2ts", "wmv", "flv", "3gp", "ogv"),
    *("txt", "json", "jsonl", "csv", "tsv", "yaml", "yml", "xml", "pdf", "doc", "docx", "xls", "xlsx", "ppt", "pptx"),
    *("htm", "html", "zip", "tar", "gz", "tgz", "bz2", "xz", "zst", "7z", "rar", "npy", "npz", "pth", "ckpt"),
    *("safetensors", "onnx", "parquet"),
}
ENDING = re.compile(r"[^\s.]\.([A-Za-z0-9]{2,11})$")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+]*://|[A-Za-z]:[\\/]|\\\\")  # https://, C:\ and \\server


def looks_like_file(word: str) -> bool:
    """Tell whether a word is written like a file's name or address: "IMG_2.HEIC", "photo.jpgg", "C:\\a", not "St.
    Bernard".

    It ends like a file that people have, or nearly like a picture; or it is a path whose last part has an ending.
    """
    if ADDRESS.match(word.strip()):
        return True
    found = ENDING.search(word.strip())
    if not found:
        return False
    ending = found[1].lower()
    is_path = ("/" in word or "\\" in word) and " " not in word.strip()
    return is_path or ending in FILE_ENDINGS or any(_one_slip(ending, known) for known in PICTURE_ENDINGS)


def _one_slip(typed: str, meant: str) -> bool:
    """Tell whether one letter is wrong, missing, too many, or swapped with the next."""
    start = next((place for place, (one, other) in enumerate(zip(typed, meant, strict=False)) if one != other), None)
    if start is None:
        return abs(len(typed) - len(meant)) == 1
    rest, wanted = typed[start:], meant[start:]
    swapped = rest[1::-1] + rest[2:] == wanted
    return swapped or rest[1:] == wanted[1:] or rest[1:] == wanted or rest == wanted[1:]
