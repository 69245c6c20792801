"""Pictures on disk: read strictly as RGB, written losslessly."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from afterimage.errors import InputError
from afterimage.io.atomic import atomic_path

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A picture of more pixels than this is refused before it is decoded (decompression bombs).
MAX_PIXELS = 50_000_000
#: Formats that are read. Pillow knows more, of which one (EPS) starts another program.
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "TIFF", "WEBP")


def read_image(path: Path) -> np.ndarray:
    """Read one picture as RGB.

    Parameters
    ----------
    path : Path
        PNG, JPEG, BMP, GIF (first frame), TIFF or WebP; grey and palette pictures are converted,
        transparency is laid on black.

    Returns
    -------
    array of shape (height, width, 3), uint8

    Raises
    ------
    InputError
        If the file is missing, truncated, not a picture, or larger than `MAX_PIXELS`.
    """
    from PIL import Image

    if not path.is_file():
        raise InputError(
            "a stimulus file is missing",
            where=str(path),
            found="no such file",
            expected="the picture that stimuli.tsv names",
            fix="put the file there, or remove its trials",
        )
    try:
        with warnings.catch_warnings(), Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise _too_large(path, f"{picture.width} x {picture.height} pixels")
            if picture.mode in ("RGBA", "LA", "PA") or "transparency" in picture.info:
                black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
                laid = Image.alpha_composite(black, picture.convert("RGBA"))
                return np.asarray(laid.convert("RGB"))
            return np.asarray(picture.convert("RGB"))
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_large(path, str(error)) from None
    except Exception as error:  # noqa: BLE001  decoders raise of every kind on damaged files
        raise InputError(
            "a picture cannot be read",
            where=str(path),
            found=str(error)[:300] or type(error).__name__,
            expected="a whole PNG or JPEG file",
            fix="copy the file again from its source; it may be truncated",
        ) from None


def _too_large(path: Path, found: str) -> InputError:
    return InputError(
        "a picture is too large", where=str(path), found=found,
        expected=f"at most {MAX_PIXELS} pixels", fix="resize the stimuli first",
    )  # fmt: skip


def write_png(path: Path, image: np.ndarray) -> None:
    """Write a uint8 RGB image of shape (height, width, 3) as PNG, atomically."""
    from PIL import Image

    with atomic_path(path) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")


def resize_images(images: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Resize pictures bilinearly (antialiased) to one size.

    Parameters
    ----------
    images : sequence of array (h, w, 3), uint8
    height, width : int
        The size wanted, in pixels.

    Returns
    -------
    array of shape (n, height, width, 3), float32 in 0..1
    """
    from PIL import Image

    resized = np.empty((len(images), height, width, 3), dtype=np.float32)
    for index, image in enumerate(images):
        if image.shape[:2] != (height, width):
            picture = Image.fromarray(image)
            image = np.asarray(picture.resize((width, height), Image.Resampling.BILINEAR))
        resized[index] = image
    resized /= 255.0
    return resized
