"""Encoded images: PNG, JPEG or WebP in, a picture in 8-bit grey or RGB out.

Nothing is decoded before the header has told how large it is. What Pillow cannot decode to the end is refused, and so
is a JPEG of so many scans that decoding it would take hours: each goes over the whole picture, however short it is.

EXIF's orientation is applied; where EXIF cannot be read, the picture is upright. What is transparent shows the
background. Of 16 bits, the upper 8 are kept. Of an animation, the first picture is taken. Colours are taken for sRGB.
"""

from io import BytesIO

import numpy as np
from PIL import Image

from services.worker.batch.processor import Rejected

FIELD = "image"
FORMATS = ("PNG", "JPEG", "WEBP")
START_OF_SCAN, MOST_SCANS = b"\xff\xda", 50
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by EXIF's orientation (CIPA DC-008, "Orientation")."""
SIXTEEN_BITS = "I;16"


def decode(encoded: bytes, *, grey: bool, background: int, max_pixels: int) -> Image.Image:
    """A picture of mode L or RGB. `background`: a grey from 0 to 255. Raises Rejected."""
    try:
        opened = Image.open(BytesIO(encoded), formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise Rejected(FIELD, f"has too many pixels: at most {max_pixels} are taken") from None
    except Exception:  # Pillow's decoders raise whatever went wrong below them
        raise Rejected(FIELD, "is neither PNG, JPEG nor WebP, or its header is broken") from None
    with opened:
        _check(opened, encoded, max_pixels)
        try:
            opened.load()
            return _flat(opened, background, "L" if grey else "RGB")
        except Exception as error:
            raise Rejected(FIELD, f"cannot be decoded: {error}") from None


def _check(opened: Image.Image, encoded: bytes, max_pixels: int) -> None:
    width, height = opened.size
    if width * height > max_pixels:
        raise Rejected(FIELD, f"has {width} × {height} pixels: at most {max_pixels} are taken")
    if opened.format not in ("PNG", "WEBP") and encoded.count(START_OF_SCAN) > MOST_SCANS:
        raise Rejected(FIELD, f"is a JPEG of more than {MOST_SCANS} scans")


def _flat(opened: Image.Image, background: int, mode: str) -> Image.Image:
    """Upright, opaque, of this mode."""
    turn = TURNS.get(_orientation(opened))
    if opened.mode == SIXTEEN_BITS:
        picture = Image.fromarray((np.asarray(opened) >> 8).astype(np.uint8))
    elif opened.has_transparency_data:
        pixels = opened if opened.mode == "RGBA" else opened.convert("RGBA")
        picture = Image.new("RGB", opened.size, (background, background, background))
        picture.paste(pixels, mask=pixels)
    else:
        picture = opened
    picture = picture if turn is None else picture.transpose(turn)
    return picture if picture.mode == mode else picture.convert("RGB").convert(mode)


def _orientation(opened: Image.Image) -> int:
    try:
        return int(opened.getexif().get(ORIENTATION, 1))
    except Exception:
        return 1
