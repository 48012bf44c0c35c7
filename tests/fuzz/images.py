"""Bytes that are, or seem to be, images: through the task that labels them."""

import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from millrace.v1.tasks_pb2 import ClassifyRequest
from tests.fuzz.models import IMAGES, MOST_PIXELS
from tests.fuzz.mutate import INTEGERS, mutate_bytes
from tests.fuzz.target import must
from tests.fuzz.typed import Typed

PNG, JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
SIDES = (0, 1, 2, 8, 1_000, 1_001, 65_535, 1 << 20, 2**31 - 1, 2**31, 2**32 - 1)
OTHERS = ("GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "JPEG2000", "AVIF", "PDF", "DDS")
BOMB_BYTES = 64 << 20
Chunk = tuple[bytes, bytes]


class Images(Typed):
    """An input is an image, for three models which make different inputs of it."""

    name, share = "images", 2_500
    growth_bytes = 64 << 20
    served = IMAGES

    @cached_property
    def samples(self) -> Sequence[bytes]:
        return list(_pictures())

    @cached_property
    def known(self) -> Sequence[bytes]:
        renamed = [head + _encoded(form)[len(head) :] for form in ("BMP", "TIFF") for head in (PNG, JPEG)]
        others = [_encoded(form) for form in OTHERS if form in Image.SAVE]
        return [b"", *self.samples, *renamed, *others, *_bombs()]

    def mutant(self, dice: random.Random) -> bytes:
        data = dice.choice(self.samples)
        for _ in range(dice.choice((1, 1, 2, 3))):
            if data.startswith(PNG) and dice.random() < 0.7:
                data = _change_png(dice, data)
            else:
                data = mutate_bytes(dice, data, dice.choice(self.samples))
        return data

    def run(self, data: bytes) -> bool:
        request = ClassifyRequest(model="tested", image=data).SerializeToString()
        accepted = [self.ask(name, [request]) for name in self.served]
        if any(accepted):
            must(data.startswith((PNG, JPEG)) or data[8:12] == b"WEBP", "neither PNG, JPEG nor WebP")
        return any(accepted)


def _picture(mode: str) -> Image.Image:
    pixels = np.random.default_rng(3).integers(0, 256, (9, 13, 4), np.uint8)
    if mode == "I;16":
        return Image.fromarray(pixels.astype(np.uint16)[..., 0] << 8)
    picture = Image.fromarray(pixels)
    return picture.convert("RGB").convert(mode) if mode in ("CMYK", "P") else picture.convert(mode)


def _encoded(form: str, mode: str = "RGB", **options: Any) -> bytes:
    file = BytesIO()
    _picture(mode).save(file, form, **options)
    return file.getvalue()


def _pictures() -> Iterator[bytes]:
    """One for each way of storing pixels, and with all that may stand beside them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    beside = {"exif": exif.tobytes(), "icc_profile": b"\0" * 200}
    frames = [_picture("RGBA")] * 2
    for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16"):
        yield _encoded("PNG", mode)
    yield _encoded("PNG", "P", transparency=3, bits=4, **beside)
    yield _encoded("PNG", "RGB", transparency=(1, 2, 3), dpi=(72, 72))
    yield _encoded("PNG", save_all=True, append_images=frames)
    for mode in ("RGB", "L", "CMYK"):
        yield _encoded("JPEG", mode, progressive=mode == "L", **beside)
    yield _encoded("JPEG", comment=b"x" * 100, restart_marker_blocks=1)
    yield _encoded("WEBP", "RGBA", lossless=True, exif=exif.tobytes(), xmp=b"<x/>")
    yield _encoded("WEBP")
    yield _encoded("WEBP", save_all=True, append_images=frames, duration=1)


def _bombs() -> Iterator[bytes]:
    """What would be large if it were believed, or unpacked."""
    for width in SIDES:
        for height in (1, 1_000, width):
            yield png([header(width, height), (b"IDAT", zlib.compress(b"\0" * 100)), END])
    zeros = zlib.compress(bytes(BOMB_BYTES), 9)
    tail = [(b"IDAT", zlib.compress(b"\0" * 26)), END]
    for name, before in ((b"zTXt", b"k\0\0"), (b"iTXt", b"k\0\1\0\0\0"), (b"iCCP", b"k\0\0")):
        yield png([header(1, 1), (name, before + zeros), *tail])
    yield png([header(1, 1), *[(b"zTXt", b"k\0\0" + zlib.compress(bytes(1 << 20)))] * 200, *tail])
    yield png([header(1, 1), *[(b"tEXt", b"k\0v")] * 50_000, *tail])
    yield png([header(1, 1), (b"IDAT", zeros), END])
    yield png([header(1, 1), *[(b"IDAT", b"")] * 50_000, *tail])
    yield png([header(1_000, 1_000, 16, 6), (b"IDAT", zlib.compress(bytes(8_001_000))), END])
    for sides in ((MOST_PIXELS, 1), (1, MOST_PIXELS), (MOST_PIXELS + 1, 1)):
        yield png([header(*sides, 8, 0), (b"IDAT", zlib.compress(bytes(sides[1] * (sides[0] + 1)))), END])
    scan = _encoded("JPEG", progressive=True)
    start = scan.index(b"\xff\xda")
    for scans in (50, 99, 5_000):
        yield scan[:start] + scan[start:-2] * scans + scan[-2:]
    frame = scan.index(b"\xff\xc2") + 5
    for sides in ((65_535, 65_535), (1_000, 1_000), (0, 1), (15, 65_535)):
        yield scan[:frame] + struct.pack(">HH", *sides) + scan[frame + 4 :]
    for kind, body in ((b"VP8X", b"\x12\0\0\0" + b"\xff" * 6), (b"VP8L", b"\x2f" + b"\xff" * 40)):
        chunk = kind + struct.pack("<I", len(body)) + body
        yield b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


END: Chunk = (b"IEND", b"")


def header(width: int, height: int, bits: int = 8, kind: int = 2) -> Chunk:
    return b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)


def png(chunks: Sequence[Chunk]) -> bytes:
    """With the sums that it should have."""
    return PNG + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )


def _chunks(data: bytes) -> Iterator[Chunk]:
    at = len(PNG)
    while at + 12 <= len(data):
        (size,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        at += 12 + size


def _change_png(dice: random.Random, data: bytes) -> bytes:
    """One change to its chunks, whose sums are right again."""
    chunks = list(_chunks(data)) or [END]
    at = dice.randrange(len(chunks))
    dice.choice(CHANGES)(dice, chunks, at)
    return png(chunks)


def _new_body(dice: random.Random, chunks: list[Chunk], at: int) -> None:
    name, body = chunks[at]
    chunks[at] = name, mutate_bytes(dice, body, dice.choice(chunks)[1])


def _new_number(dice: random.Random, chunks: list[Chunk], at: int) -> None:
    name, body = chunks[at]
    place = 4 * dice.randrange(len(body) // 4 + 1)
    number = dice.choice((dice.choice(INTEGERS) & 2**32 - 1, dice.choice(SIDES)))
    chunks[at] = name, body[:place] + struct.pack(">I", number) + body[place + 4 :]


def _new_pixels(dice: random.Random, chunks: list[Chunk], at: int) -> None:
    """Packed again: a filter that is none, too few rows, or too many."""
    rows = b"".join(body for name, body in chunks if name == b"IDAT")
    with suppress(zlib.error):
        rows = zlib.decompressobj().decompress(rows, 1 << 20)
    chunks[at] = b"IDAT", zlib.compress(mutate_bytes(dice, rows))


def _repeat(dice: random.Random, chunks: list[Chunk], at: int) -> None:
    chunks[at:at] = [chunks[at]] * dice.choice((1, 2, 200))


def _remove(dice: random.Random, chunks: list[Chunk], at: int) -> None:
    del chunks[at]


def _move(dice: random.Random, chunks: list[Chunk], at: int) -> None:
    chunks.insert(dice.randrange(len(chunks)), chunks.pop(at))


def _rename(dice: random.Random, chunks: list[Chunk], at: int) -> None:
    names = (b"tRNS", b"PLTE", b"IDAT", b"fdAT", b"fcTL", b"acTL", b"eXIf", b"iCCP", b"zTXt", b"iTXt", b"IEND", b"gAMA")
    chunks[at] = dice.choice(names), chunks[at][1]


CHANGES: Sequence[Callable[[random.Random, list[Chunk], int], None]] = (
    *(_new_body, _new_body, _new_number, _new_number, _new_pixels),
    *(_repeat, _remove, _move, _rename),
)
