"""An image's pixels from the bytes of its file.

They are those of torchvision's ImageFolder, but for what a viewer would show otherwise: photographs are
turned upright, transparent pixels lie on white, and 16 bits are scaled to 8.
"""

import functools
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

ORIENTATION = 0x0112  # EXIF's tag
DEEP = ("I", "F")  # what Pillow's modes of more than 8 bits begin with
UNKNOWN_RANGE = "its pixels have neither 8 nor 16 bits; save it with 8"
DRAWINGS = ("EPS", "WMF")  # Pillow has Ghostscript, or Windows, draw them
GREY = ("1", "L", "LA", "La", *DEEP)  # and those without colours


def square(content: bytes, side: int, channels: int) -> np.ndarray:
    """The image in a file's bytes (channels, side, side) of uint8: its shorter side is resized to `side`,
    then its centre is cut out. Raises what Pillow raises.
    """
    return cut(decoded(opened(content)).convert("L" if channels == 1 else "RGB"), side)


def fitted(pixels: np.ndarray, side: int) -> np.ndarray:
    """A decoded image (channels, h, w) of uint8, resized as `square` does."""
    from PIL import Image

    return cut(
        Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))),
        side,
    )


def cut(image: "Image.Image", side: int) -> np.ndarray:
    """See `square`."""
    from PIL import ImageOps

    return np.asarray(ImageOps.fit(image, (side, side))).reshape(side, side, -1).transpose(2, 0, 1)


def why(error: Exception) -> str:
    """Why an image cannot be read, in a few words."""
    text = str(getattr(error, "strerror", None) or error).splitlines()
    return text[0] if text else type(error).__name__


def header(content: bytes) -> "Image.Image | None":
    """The image in a file's bytes, not decoded; None where there is none."""
    try:
        return opened(content)
    except Exception:  # Pillow raises nearly anything on a torn or hostile file
        return None


def opened(content: bytes) -> "Image.Image":
    """The image in a file's bytes, not decoded. Raises what Pillow raises."""
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise ValueError("it is empty")
    try:
        return Image.open(io.BytesIO(content), formats=formats())
    except UnidentifiedImageError as error:
        raise ValueError("it is in no known format") from error


@functools.cache
def formats() -> list[str]:
    """What Pillow may take a file for: all but drawings, which another program would run."""
    from PIL import Image

    Image.init()
    return [name for name in Image.ID if name not in DRAWINGS]


def is_as_stored(image: "Image.Image") -> bool:
    """Whether an image is shown as it is stored; asked before it is decoded."""
    turned = orientation(image) != 1
    return not (turned or image.mode.startswith(DEEP) or image.has_transparency_data)


def orientation(image: "Image.Image") -> int:
    """How the camera was held, as EXIF says in front of the pixels: 1 is upright."""
    if image.format == "PNG" and not {"exif", "Raw profile type exif"} & image.info.keys():
        return 1  # Pillow would decode the pixels to look behind them
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # as in `header`
        return 1


def decoded(image: "Image.Image") -> "Image.Image":
    """The first frame of an image in RGB, as a viewer shows it. Raises what Pillow raises."""
    from PIL import Image, ImageOps

    if image.mode == "I" and image.format == "TIFF":  # of other formats these are 16 bits
        raise ValueError(UNKNOWN_RANGE)
    upright = ImageOps.exif_transpose(image) if orientation(image) != 1 else image
    if upright.mode.startswith(DEEP):
        return eight_bits(upright).convert("RGB")
    if not upright.has_transparency_data:
        return upright.convert("RGB")
    paper = Image.new("RGBA", upright.size, "white")
    paper.alpha_composite(upright.convert("RGBA"))
    return paper.convert("RGB")


def eight_bits(image: "Image.Image") -> "Image.Image":
    """A grey image of 16 bits with the upper 8 of them; Pillow would cut off all that is above 255.

    Raises ValueError where its pixels are floats, or have more than 16 bits: their range is not known.
    """
    from PIL import Image

    values = np.asarray(image)
    if values.dtype.kind == "f" or values.min() < 0 or values.max() > 0xFFFF:
        raise ValueError(UNKNOWN_RANGE)
    return Image.fromarray((values >> 8).astype(np.uint8))
