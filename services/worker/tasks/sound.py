"""Encoded sounds: WAV or FLAC in, one channel at the model's rate out, block by block.

Nothing is decoded before it is asked for, and nothing is held but the bytes and one block, so that a header, or a FLAC
of hours of silence in a few bytes, allocates nothing. A job that goes on behind its first windows decodes them again,
which takes two thousandths of their time.

WAV is read here: libsndfile 1.2.2 has no end for some WAV files of 157 bytes (its issue 1118). FLAC is libsndfile's;
the bytes that every FLAC begins with keep its other formats away. Rates are changed by libsoxr: half a megabyte, made
for streams, and less than a millisecond for a second of sound; scipy, which has such filters too, is a hundred times as
large and has them for whole sounds only.
"""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from services.worker.batch.processor import Rejected

Samples = npt.NDArray[np.float32]
"""[samples], of one channel; 1 is the loudest that an integer format can say."""
FIELD = "audio"
LOWEST_RATE = 1_000
MOST_PER_SECOND = 400_000
"""Samples of all channels together, which bounds what a second costs: 8 channels at 48 kHz, 2 at 192 kHz."""
LOUDEST = 2.0**31
"""Floats may be what integers of 32 bits are; what lies beyond would only overflow later."""
BLOCK = 1 << 16
"""Samples of all channels that are decoded at once."""
CHUNKS_BEFORE_DATA = 1_000
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE
EXTENSIBLE_TAIL = bytes.fromhex("000000001000800000aa00389b71")
"""Of a sub-format's GUID, behind the two bytes that are the format."""
SCALES = {
    (PCM, 8): 2.0**-7,
    (PCM, 16): 2.0**-15,
    (PCM, 24): 2.0**-31,
    (PCM, 32): 2.0**-31,
    (FLOAT, 32): 1,
    (FLOAT, 64): 1,
}
DTYPES = {(PCM, 8): "u1", (PCM, 16): "<i2", (PCM, 32): "<i4", (FLOAT, 32): "<f4", (FLOAT, 64): "<f8"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A sound whose header has been read."""

    rate: int
    channels: int
    claimed_frames: int
    """What the header says, 0 where it says nothing; more or fewer may follow."""
    blocks: Iterator[npt.NDArray[np.float32]]
    """[frames, channels]."""


def samples(audio: bytes, rate: int, most_s: float) -> Iterator[Samples]:
    """A sound's channels' mean at `rate` samples a second, block by block, each made when it is asked for.

    Raises Rejected: before the first block for what a header tells, before any later one for what is found there.
    """
    encoded = _open(audio)
    _check(encoded, most_s)
    most_frames = math.floor(most_s * encoded.rate)
    resampler = soxr.ResampleStream(encoded.rate, rate, 1) if encoded.rate != rate else None
    frames = 0
    for block in encoded.blocks:
        frames += len(block)
        if frames > most_frames:
            raise _too_long(most_s)
        mixed = _mix(block)
        yield mixed if resampler is None else resampler.resample_chunk(mixed)
    if not frames:
        raise Rejected(FIELD, "has no samples")
    if resampler is not None:
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)


def _open(audio: bytes) -> Encoded:
    if audio[:4] == b"RIFF" and audio[8:12] == b"WAVE":
        return _open_wav(memoryview(audio))
    if audio[:4] == b"fLaC":
        return _open_flac(audio)
    raise Rejected(FIELD, "is neither WAV nor FLAC")


def _check(encoded: Encoded, most_s: float) -> None:
    if encoded.rate < LOWEST_RATE:
        raise Rejected(FIELD, f"has {encoded.rate} samples a second: at least {LOWEST_RATE} are taken")
    if encoded.channels * encoded.rate > MOST_PER_SECOND:
        raise Rejected(
            FIELD,
            f"has {encoded.channels} channels of {encoded.rate} samples a second: "
            f"together at most {MOST_PER_SECOND} are taken",
        )
    if encoded.claimed_frames > most_s * encoded.rate:
        raise _too_long(most_s)


def _too_long(most_s: float) -> Rejected:
    return Rejected(FIELD, f"is longer than {most_s:g} s")


def _mix(block: npt.NDArray[np.float32]) -> Samples:
    with np.errstate(over="ignore", invalid="ignore"):
        mixed: Samples = block @ np.full(block.shape[1], 1 / block.shape[1], np.float32)
    if not (np.abs(mixed) <= LOUDEST).all():
        raise Rejected(FIELD, "has samples that are not finite, or far from what is a sound's")
    return mixed


def _open_wav(audio: memoryview) -> Encoded:
    """WAVE_FORMAT_PCM, IEEE_FLOAT and EXTENSIBLE with either, as RFC 2361 and Microsoft's "Multiple channel audio data
    and WAVE files" have them. Data that the file ends before are as long as they are: streams are written so."""
    form, data = _chunks(audio)
    kind, channels, rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", form)
    if kind == EXTENSIBLE and len(form) >= 40 and form[26:40] == EXTENSIBLE_TAIL:
        (kind,) = struct.unpack_from("<H", form, 24)
    if (kind, bits) not in SCALES:
        raise Rejected(FIELD, f"is a WAV of format {kind} with {bits} bits: PCM of 8, 16, 24, 32 and floats are taken")
    if not channels or frame_bytes != channels * bits // 8:
        raise Rejected(FIELD, f"is a WAV whose frames of {channels} channels have {frame_bytes} bytes")
    frames = len(data) // frame_bytes
    blocks = _wav_blocks(data[: frames * frame_bytes], channels, (kind, bits))
    return Encoded(rate=rate, channels=channels, claimed_frames=frames, blocks=blocks)


def _chunks(audio: memoryview) -> tuple[memoryview, memoryview]:
    """The bodies of "fmt " and "data"."""
    form, place = None, 12
    for _ in range(CHUNKS_BEFORE_DATA):
        if place + 8 > len(audio):
            break
        name, size = struct.unpack_from("<4sI", audio, place)
        body = audio[place + 8 : place + 8 + size]
        if name == b"fmt " and len(body) >= 16:
            form = body
        if name == b"data" and form is not None:
            return form, body
        place += 8 + size + size % 2
    raise Rejected(FIELD, "is a WAV without a format, or without data behind it")


def _wav_blocks(data: memoryview, channels: int, form: tuple[int, int]) -> Iterator[npt.NDArray[np.float32]]:
    frame_bytes = channels * form[1] // 8
    step = max(BLOCK // channels, 1) * frame_bytes
    for place in range(0, len(data), step):
        numbers = _numbers(data[place : place + step], form)
        with np.errstate(over="ignore"):
            yield (numbers * SCALES[form]).astype(np.float32).reshape(-1, channels)


def _numbers(data: memoryview, form: tuple[int, int]) -> npt.NDArray[np.float64]:
    """As they stand there; those of 8 bits about zero, and those of 24 bits as the upper ones of 32."""
    if form == (PCM, 24):
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        return wide.view("<i4")[:, 0].astype(np.float64)
    numbers = np.frombuffer(data, DTYPES[form]).astype(np.float64)
    return numbers - 128 if form == (PCM, 8) else numbers


class _Flac(soundfile.SoundFile):  # type: ignore[misc]
    """Read from its beginning to its end. Soundfile would seek after each block, which fails where the header's number
    of frames is 0, for unknown, or wrong."""

    def seekable(self) -> bool:
        return False


def _open_flac(audio: bytes) -> Encoded:
    try:
        file = _Flac(BytesIO(audio))
    except soundfile.LibsndfileError as error:
        raise _undecodable(error) from None
    unknown = file.frames > 1 << 36  # more than FLAC can say
    return Encoded(
        rate=file.samplerate,
        channels=file.channels,
        claimed_frames=0 if unknown else file.frames,
        blocks=_flac_blocks(file),
    )


def _flac_blocks(file: _Flac) -> Iterator[npt.NDArray[np.float32]]:
    with file:
        block = np.empty((BLOCK // file.channels, file.channels), np.float32)
        try:
            while frames := len(file.read(out=block)):
                yield block[:frames]
        except soundfile.LibsndfileError as error:
            raise _undecodable(error) from None


def _undecodable(error: soundfile.LibsndfileError) -> Rejected:
    return Rejected(FIELD, f"is a FLAC that cannot be decoded: {error.error_string}")
