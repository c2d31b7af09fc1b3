"""Image files below a folder of classes, decoded to 8-bit arrays of one size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from backstop.platform.intake.files import naming_file
from backstop.platform.params import BadInput

ENDINGS = {
    ".bmp",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
}
MODES = {"color": "RGB", "gray": "L"}
# modes whose values have more than 8 bits: a conversion would clip them
DEEP = ("I", "F")


class PictureForm(NamedTuple):
    """What images are made into."""

    size: int | None  # pixels of each side; None: as they are
    pixels: Literal["color", "gray"]


class ClassFolder(NamedTuple):
    """The images of one class."""

    name: str
    images: list[Path]


def subfolders(folder: Path) -> list[Path]:
    """The folders in a folder by their names, hidden ones aside."""
    return sorted(
        inner for inner in folder.iterdir() if inner.is_dir() and not inner.name.startswith(".")
    )


def class_folders(folder: Path, hint: str) -> tuple[list[ClassFolder], int]:
    """The classes in a folder, and how many files in them are no images by their names. Raises
    BadInput where there are no classes or one of them is empty.
    """
    classes, others = [], 0
    for inner in subfolders(folder):
        files = sorted(
            file
            for file in inner.rglob("*")
            if file.is_file() and not file.name.startswith((".", "Thumbs.db"))
        )
        images = [file for file in files if file.suffix.lower() in ENDINGS]
        others += len(files) - len(images)
        if not images:
            raise BadInput(
                f"{inner} holds no image ({len(files)} other files), and a folder is a class;"
                f" images end in {', '.join(sorted(ENDINGS))}"
            )
        classes.append(ClassFolder(inner.name, images))
    if not classes:
        raise BadInput(f"{folder} has no folders in it, one for each class; {hint}")
    return classes, others


def decode(
    files: Sequence[Path],
    form: PictureForm,
    hint: str,
    *,
    sizes: str = "folder(size=32) makes all of one size",
) -> npt.NDArray[np.uint8]:
    """The images, (N, channels, height, width) uint8. Raises BadInput for one that cannot be read,
    and where sizes differ and no size is wanted: ``sizes`` says what then.
    """
    pixels: list[npt.NDArray[np.uint8]] = []
    for file in files:
        pixels.append(_decoded(file, form, hint))
        if pixels[-1].shape != pixels[0].shape:
            here, first = (f"{item.shape[2]}×{item.shape[1]}" for item in (pixels[-1], pixels[0]))
            raise BadInput(f"{file} has {here} pixels and {files[0].name} {first}; {sizes}")
    return np.stack(pixels)


def _decoded(
    file: Path,
    form: PictureForm,
    hint: str,
) -> npt.NDArray[np.uint8]:
    from PIL import Image

    with naming_file(file, hint), Image.open(file) as opened:
        return as_pixels(opened, form, str(file))


def as_pixels(
    opened: Any,
    form: PictureForm,
    where: str,
) -> npt.NDArray[np.uint8]:
    """An image of PIL as (channels, height, width). Raises BadInput, which begins with ``where``,
    for one of more than 8 bits a pixel.
    """
    from PIL import Image, ImageOps

    if opened.mode.startswith(DEEP):
        raise BadInput(f"{where} has more than 8 bits a pixel (mode {opened.mode}); save it with 8")
    upright: Any = ImageOps.exif_transpose(opened)
    image = upright.convert(MODES[form.pixels])
    if form.size is not None and image.size != (form.size, form.size):
        image = image.resize((form.size, form.size), Image.Resampling.BILINEAR)
    array = np.asarray(image, np.uint8)
    channels = array.reshape(*array.shape[:2], -1)
    return np.ascontiguousarray(channels.transpose(2, 0, 1))
