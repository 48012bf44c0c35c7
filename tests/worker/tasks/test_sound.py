"""Bytes of WAV and FLAC in, samples of one channel at the model's rate out; what is no sound does not get through."""

import struct
import tracemalloc
from contextlib import suppress

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from millrace.errors import Code
from services.worker.batch.processor import Rejected
from services.worker.tasks import sound
from services.worker.tasks.sound import Samples
from tests.worker.tasks.sounds import RATE, encoded, melody

FORMS = [
    *[("WAV", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")],
    *[("WAVEX", subtype) for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT")],
    *[("FLAC", subtype) for subtype in ("PCM_S8", "PCM_16", "PCM_24")],
]
STEPS = {"PCM_U8": 2**-7, "PCM_S8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-23}
"""What is lost where it is encoded; other formats lose no more than a float has."""
TUNE = melody("abcd")
STREAMINFO, CLAIMED_FRAMES = slice(18, 26), (1 << 36) - 1
"""Of a FLAC's bytes: rate, channels, bits, and in the last 36 bits the number of frames."""


def read(audio: bytes, rate: int = RATE, most_s: float = 60) -> Samples:
    return np.concatenate(list(sound.samples(audio, rate, most_s)))


def wav(*, kind: int = 1, channels: int = 1, rate: int = RATE, bits: int = 16, data: bytes = bytes(64)) -> bytes:
    """A header of the bare minimum, whether or not its fields make sense."""
    frame = channels * bits // 8
    form = struct.pack("<HHIIHH", kind, channels & 0xFFFF, rate, rate * frame & 0xFFFFFFFF, frame & 0xFFFF, bits)
    return chunks((b"fmt ", form), (b"data", data))


def chunks(*parts: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(content)) + content for name, content in parts)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WAVE" + body


def claiming(flac: bytes, frames: int) -> bytes:
    packed = int.from_bytes(flac[STREAMINFO], "big") & ~CLAIMED_FRAMES | frames
    return flac[: STREAMINFO.start] + packed.to_bytes(8, "big") + flac[STREAMINFO.stop :]


@pytest.mark.parametrize(("form", "subtype"), FORMS)
def test_every_depth_gives_what_was_encoded(form: str, subtype: str) -> None:
    found = read(encoded(TUNE, form=form, subtype=subtype))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, TUNE, rtol=0, atol=STEPS.get(subtype, 2**-24))


def test_integers_are_shares_of_the_loudest_one() -> None:
    assert read(wav(bits=8, data=b"\x00\x80\xff")).tolist() == [-1, 0, 127 / 128]
    assert read(wav(bits=16, data=b"\x00\x80\xff\x7f")).tolist() == [-1, 32_767 / 32_768]
    assert read(wav(bits=24, data=b"\x00\x00\x80\x01\x00\x00")).tolist() == [-1, 2**-23]
    assert read(wav(bits=32, data=b"\x00\x00\x00\x80\x00\x00\x00\x40")).tolist() == [-1, 0.5]


@pytest.mark.parametrize("form", ["WAV", "FLAC"])
def test_several_channels_become_their_mean(form: str) -> None:
    channels = np.stack([TUNE, np.zeros_like(TUNE), -TUNE / 2], axis=1)
    np.testing.assert_allclose(read(encoded(channels, form=form)), TUNE / 6, rtol=0, atol=2**-15)


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_a_tone_is_the_same_one_at_the_models_rate(rate: int) -> None:
    def tone(at: int) -> Samples:
        return np.asarray(0.5 * np.sin(2 * np.pi * 440 * np.arange(2 * at) / at), np.float32)

    found = read(encoded(tone(rate), rate, subtype="FLOAT"))
    inner = slice(RATE // 10, -RATE // 10)
    assert len(found) == 2 * RATE
    np.testing.assert_allclose(found[inner], tone(RATE)[inner], rtol=0, atol=1e-5)


def test_blocks_join_without_a_seam() -> None:
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, 3 * sound.BLOCK).astype(np.float32)
    audio = encoded(noise, 44_100, subtype="FLOAT")
    assert len(list(sound.samples(audio, RATE, 60))) > 3
    np.testing.assert_allclose(read(audio), soxr.resample(noise, 44_100, RATE), rtol=0, atol=1e-6)


def test_a_stream_whose_header_does_not_know_its_length_is_read_to_its_end() -> None:
    flac = encoded(TUNE, form="FLAC")
    np.testing.assert_array_equal(read(claiming(flac, 0)), read(flac))
    plain = encoded(TUNE)
    place = plain.index(b"data") + 4
    np.testing.assert_array_equal(read(plain[:place] + b"\xff" * 4 + plain[place + 4 :]), read(plain))


def test_chunks_that_say_nothing_of_the_samples_are_skipped() -> None:
    form, data = wav()[20:36], b"\0\x40" * 8
    audio = chunks((b"LIST", b"odd"), (b"fmt ", form), (b"fact", bytes(4)), (b"data", data), (b"LIST", bytes(8)))
    audio = audio.replace(b"odd", b"odd\0")
    assert read(audio).tolist() == [0.5] * 8


def test_hours_of_silence_in_a_few_bytes_take_no_memory() -> None:
    audio = encoded(np.zeros(RATE * 600, np.int16), form="FLAC")
    assert len(audio) < 100_000
    tracemalloc.start()
    try:
        assert sum(map(len, sound.samples(audio, RATE, 600))) == RATE * 600
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20


def test_a_sound_that_is_longer_than_its_header_says_is_refused_when_it_gets_too_long() -> None:
    audio = claiming(encoded(np.zeros(RATE * 10, np.int16), form="FLAC"), 0)
    blocks = sound.samples(audio, RATE, 6)
    assert len(next(blocks)) == sound.BLOCK
    with pytest.raises(Rejected, match="is longer than 6 s"):
        next(blocks)


FLAC = encoded(TUNE, form="FLAC")
FLOATS = np.zeros(100, "<f4")
HOSTILE = {
    "nothing": (b"", "neither WAV nor FLAC"),
    "text": (b"RIFF, as it were", "neither WAV nor FLAC"),
    "ogg": (b"OggS" + bytes(100), "neither WAV nor FLAC"),
    "big-endian": (b"RIFX" + wav()[4:], "neither WAV nor FLAC"),
    "header alone": (wav()[:12], "without a format"),
    "no data": (wav()[:36], "without a format, or without data"),
    "data first": (chunks((b"data", bytes(8)), (b"fmt ", bytes(16))), "without a format"),
    "a short format": (chunks((b"fmt ", bytes(8)), (b"data", bytes(8))), "without a format"),
    "a million chunks": (b"RIFF\0\0\0\0WAVE" + b"junk\0\0\0\0" * 1_000_000 + wav()[12:], "without a format"),
    "a chunk beyond the file": (b"RIFF\0\0\0\0WAVELIST\xf0\xff\xff\xffINFO" + wav()[12:], "without a format"),
    "no samples": (wav(data=b""), "has no samples"),
    "half a frame": (wav(data=b"\0"), "has no samples"),
    "no channels": (wav(channels=0), "0 channels"),
    "a thousand channels": (wav(channels=1_000, data=bytes(4_000)), "1000 channels of 16000"),
    "frames of other sizes": (wav(bits=16)[:32] + b"\x07" + wav(bits=16)[33:], "have 7 bytes"),
    "no rate": (wav(rate=0), "has 0 samples a second"),
    "any rate": (wav(rate=2**32 - 1), "1 channels of 4294967295 samples a second"),
    "ADPCM": (wav(kind=2, bits=4), "format 2 with 4 bits"),
    "64-bit integers": (wav(bits=64), "format 1 with 64 bits"),
    "too long": (wav(data=bytes(2 * RATE * 61)), "is longer than 60 s"),
    "NaN": (wav(kind=3, bits=32, data=np.append(FLOATS, np.nan).astype("<f4").tobytes()), "not finite"),
    "infinity": (wav(kind=3, bits=32, data=np.append(FLOATS, -np.inf).astype("<f4").tobytes()), "not finite"),
    "a double beyond floats": (wav(kind=3, bits=64, data=np.array([1e300]).tobytes()), "not finite"),
    "louder than any sound": (wav(kind=3, bits=32, data=np.array([1e20], "<f4").tobytes()), "far from"),
    "the first bytes of FLAC": (b"fLaC", "FLAC that cannot be decoded"),
    "a FLAC cut short": (FLAC[: len(FLAC) // 2], "FLAC that cannot be decoded"),
    "a FLAC with a hole": (FLAC[:5_000] + bytes(500) + FLAC[5_500:], "FLAC that cannot be decoded"),
    "a FLAC without frames": (FLAC[:42], "FLAC that cannot be decoded|has no samples"),
    "a FLAC that claims a year": (claiming(FLAC, CLAIMED_FRAMES), "is longer than 60 s"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_sound_is_refused_with_a_reason(name: str) -> None:
    audio, reason = HOSTILE[name]
    with pytest.raises(Rejected, match=reason) as caught:
        read(audio)
    assert (caught.value.failure.code, caught.value.failure.field) == (Code.INVALID_ARGUMENT, "audio")


@settings(max_examples=300, deadline=None)
@given(data=st.data(), seed=st.sampled_from([encoded(TUNE[:3_000], form=form) for form in ("WAV", "WAVEX", "FLAC")]))
def test_damage_is_refused_or_heard_and_nothing_else(data: st.DataObject, seed: bytes) -> None:
    audio = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, min(len(audio) - 1, 200)) | st.integers(0, len(audio) - 1))
        audio[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    with suppress(Rejected):
        assert np.isfinite(read(bytes(audio[: data.draw(st.just(len(audio)) | st.integers(0, len(audio)))]))).all()
