"""Bytes that are, or seem to be, sounds: through a model that transcribes and one that labels them."""

import random
import struct
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from millrace.v1.tasks_pb2 import ClassifyRequest, TranscribeRequest
from tests.fuzz.models import SOUNDS
from tests.fuzz.mutate import INTEGERS, mutate_bytes
from tests.fuzz.target import must
from tests.fuzz.typed import Typed
from tests.worker.tasks.sounds import encoded, melody

RATES = (0, 1, 999, 1_000, 8_000, 11_025, 16_000, 44_100, 192_000, 200_001, 400_000, 2**31, 2**32 - 1)
CHANNELS = (0, 1, 2, 3, 8, 9, 255, 1_000, 65_535)
KINDS = ((1, 8), (1, 16), (1, 24), (1, 32), (3, 32), (3, 64))
ODD_KINDS = ((0, 0), (1, 0), (1, 1), (1, 12), (1, 64), (2, 4), (3, 16), (6, 8), (7, 8), (17, 4), (0xFFFE, 16), (85, 0))
SIZES = (0, 1, 2, 3, 7, 1_000, 2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1)
REALS = (float("nan"), float("inf"), float("-inf"), 1e38, -3.4e38, 2.0**31, 2.0**32, 1e-45, -1.0)
OTHERS = ("OGG", "AIFF", "AU", "W64", "CAF", "RF64", "WAVEX", "MP3")
SUBTYPES = ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
STREAMINFO = 42
"""Bytes of a FLAC up to the end of its first block, which no sum guards."""


class Sounds(Typed):
    """An input is a sound, for two models."""

    name, share = "sounds", 2_000
    growth_bytes = 96 << 20
    served = SOUNDS

    @cached_property
    def samples(self) -> Sequence[bytes]:
        return list(_sounds())

    @cached_property
    def known(self) -> Sequence[bytes]:
        return [b"", *self.samples, *_others(), *_headers(), *_lies(self.samples[-1])]

    def mutant(self, dice: random.Random) -> bytes:
        if dice.random() < 0.25:
            return _drawn_wav(dice)
        data = dice.choice(self.samples)
        for _ in range(dice.choice((1, 1, 2, 3))):
            if data[:4] == b"fLaC" and dice.random() < 0.5:
                data = mutate_bytes(dice, data[:STREAMINFO])[:STREAMINFO] + data[STREAMINFO:]
            elif data[:4] == b"RIFF" and dice.random() < 0.5:
                data = mutate_bytes(dice, data[:60]) + data[60:]
            else:
                data = mutate_bytes(dice, data, dice.choice(self.samples))
        return data

    def run(self, data: bytes) -> bool:
        spoken = TranscribeRequest(model="tested", audio=data).SerializeToString()
        heard = ClassifyRequest(model="tested", audio=data).SerializeToString()
        accepted = [self.ask("transcriber", [spoken]), self.ask("listener", [heard])]
        if any(accepted):
            must(data[:4] in (b"RIFF", b"fLaC"), "neither WAV nor FLAC")
        return any(accepted)


def _sounds() -> Iterator[bytes]:
    """Every format that is taken; the last is a FLAC."""
    tones = melody("ab")[:9_000]
    for subtype in SUBTYPES:
        yield encoded(tones, subtype=subtype)
    for rate, channels in ((8_000, 1), (11_025, 2), (48_000, 8), (192_000, 2)):
        yield encoded(np.repeat(tones[:4_000, None], channels, 1), rate)
    yield encoded(tones, form="WAVEX", subtype="PCM_24")
    for rate, subtype in ((16_000, "PCM_S8"), (44_100, "PCM_24"), (16_000, "PCM_16")):
        yield encoded(tones, rate, "FLAC", subtype)
    yield encoded(np.repeat(tones[:3_000, None], 8, 1), 16_000, "FLAC")


def _others() -> Iterator[bytes]:
    """Formats that are not taken, as they are and under the names of those that are."""
    tones = melody("a")
    for form in OTHERS:
        subtype = {"OGG": "VORBIS", "MP3": "MPEG_LAYER_III"}.get(form, "PCM_16")
        other = encoded(tones, form=form, subtype=subtype)
        yield from (other, b"fLaC" + other[4:], b"RIFF" + other[4:8] + b"WAVE" + other[12:])
    yield b"ID3\4\0\0\0\0\0\x0a" + bytes(10) + encoded(tones, form="FLAC")


def wav(
    kind: int, bits: int, channels: int, rate: int, frame_bytes: int, data: bytes, size: int | None = None
) -> bytes:
    """`size`: what it says of its data."""
    form = struct.pack("<HHIIHH", kind, channels, rate, rate * frame_bytes & 2**32 - 1, frame_bytes, bits)
    told = len(data) if size is None else size
    body = b"fmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", told) + data
    return b"RIFF" + struct.pack("<I", (4 + len(body)) & 2**32 - 1) + b"WAVE" + body


def _headers() -> Iterator[bytes]:
    """Each by itself."""
    for channels in CHANNELS:
        yield wav(1, 16, channels, 16_000, 2 * channels & 65_535, bytes(8_000))
        yield wav(1, 16, channels, 1_000, 2 * channels & 65_535, bytes(200_000))
    for rate in RATES:
        yield wav(1, 16, 1, rate, 2, bytes(8_000))
    for kind, bits in (*KINDS, *ODD_KINDS):
        yield wav(kind, bits, 1, 16_000, bits // 8, bytes(range(256)) * 32)
    for size in SIZES:
        yield wav(1, 16, 1, 16_000, 2, bytes(4_000), size)
    for real in REALS:
        yield wav(3, 32, 1, 16_000, 4, struct.pack("<f", real) * 4_000)
        yield wav(3, 64, 1, 16_000, 8, bytes(800) + struct.pack("<d", real * (1e200 if real != -1 else 1)))
    yield wav(1, 8, 1, 1_000, 1, bytes(5_999))
    yield wav(1, 8, 1, 192_000, 1, bytes(2_000_000))
    yield b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 100_000
    yield b"RIFF\0\0\0\0WAVE" + b"LIST\xff\xff\xff\xff" * 3


def _lies(flac: bytes) -> Iterator[bytes]:
    """FLACs that say of themselves what is not so: frames, channels, rates, sizes of blocks."""
    for word in (0, 1, 2**36 - 1, 1 << 35):
        packed = int.from_bytes(flac[18:26], "big")
        yield flac[:18] + (packed >> 36 << 36 | word).to_bytes(8, "big") + flac[26:]
    for word in (0, 0xFF, 0xFFFF):
        yield flac[:8] + struct.pack(">HH", word, word) + flac[12:]
    for rate in (0, 1, 999, 655_350, (1 << 20) - 1):
        packed = int.from_bytes(flac[18:26], "big")
        yield flac[:18] + (packed & (1 << 44) - 1 | rate << 44).to_bytes(8, "big") + flac[26:]
    for kind in (0, 1, 2, 3, 4, 5, 6, 7, 126, 127):
        for size in (0, 34, 2**24 - 1):
            yield flac[:42] + bytes([kind]) + size.to_bytes(3, "big") + b"\xff" * 34 + flac[42:]
    yield flac[:42] + (b"\1\0\0\0" * 50_000) + flac[42:]
    yield flac[:STREAMINFO]
    yield flac * 50


def _drawn_wav(dice: random.Random) -> bytes:
    kind, bits = dice.choice((*KINDS, *KINDS, *ODD_KINDS))
    channels, rate = dice.choice((1, 1, 2, *CHANNELS)), dice.choice((16_000, 8_000, *RATES))
    frame_bytes = dice.choice((channels * bits // 8, channels * bits // 8, dice.choice(INTEGERS))) & 65_535
    data: Any = dice.choice((dice.randbytes(4_003), bytes(30_000), struct.pack("<f", dice.choice(REALS)) * 2_000))
    return wav(kind, bits, channels, rate, frame_bytes, data, dice.choice((None, None, *SIZES)))
