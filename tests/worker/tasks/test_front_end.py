"""Samples become the inputs that a graph says it takes."""

from typing import Any

import numpy as np
import pytest

from services.worker.batch.graph import ROWS, Port, Ports
from services.worker.tasks.front_end import FrontEnd, SoundFields, read_fields
from tests.worker.tasks.sounds import MELS, RATE, melody

TUNE = melody("abc")
MEL: dict[str, Any] = {"features": "log-mel", "log_mel": MELS}


def port(name: str, *dims: int | str, datatype: str = "FP32", dtype: Any = np.float32) -> Port:
    return Port(name=name, datatype=datatype, dtype=np.dtype(dtype), dims=(ROWS, *dims))


LENGTH = port("length", datatype="INT64", dtype=np.int64)


def front_end(*inputs: Port, buckets: tuple[str, ...] = (), **fields: Any) -> FrontEnd:
    ports = Ports(inputs=inputs, outputs=(), batched=True)
    return FrontEnd(SoundFields(**fields), ports, dict.fromkeys(buckets, 64))


def test_a_waveform_is_fed_as_it_is() -> None:
    feed = front_end(port("x", "samples")).feed(TUNE)
    assert feed["x"].dtype == np.float32
    np.testing.assert_array_equal(feed["x"], TUNE[np.newaxis])


def test_a_waveform_is_scaled_or_normalised_where_the_model_says_so() -> None:
    scaled = front_end(port("x", "samples"), scale=32_768).feed(TUNE)["x"]
    np.testing.assert_array_equal(scaled, TUNE[np.newaxis] * 32_768)
    normal = front_end(port("x", "samples"), normalise=True).feed(TUNE + np.float32(0.25), least=RATE)["x"]
    assert normal.shape == (1, RATE)
    assert (abs(normal[0, : len(TUNE)].mean()), normal[0, : len(TUNE)].std()) == pytest.approx((0, 1), abs=1e-4)
    assert not normal[0, len(TUNE) :].any()
    assert not front_end(port("x", "samples"), normalise=True).feed(np.zeros(RATE, np.float32))["x"].any()


def test_features_lie_as_the_graph_wants_them() -> None:
    rows = front_end(port("x", "frames", 40), **MEL).feed(TUNE)["x"]
    frames = len(TUNE) * 100 // RATE + 1
    assert rows.shape == (1, frames, 40)
    columns = front_end(port("x", 40, "frames"), layout="mels-frames", **MEL).feed(TUNE)["x"]
    np.testing.assert_array_equal(columns, rows.transpose(0, 2, 1))
    image = port("x", 1, "frames", 40, datatype="FP16", dtype=np.float16)
    half = front_end(image, **MEL).feed(TUNE)["x"]
    assert (half.shape, half.dtype.name) == ((1, 1, frames, 40), "float16")


def test_the_length_is_that_of_the_sound_whatever_it_is_padded_to() -> None:
    frames = len(TUNE) * 100 // RATE + 1
    feed = front_end(port("x", 500, 40), LENGTH, length="length", **MEL).feed(TUNE)
    assert feed["x"].shape == (1, 500, 40)
    assert feed["length"].tolist() == [frames]
    feed = front_end(port("x", "samples"), LENGTH, length="length").feed(TUNE, least=RATE)
    assert (feed["x"].shape, feed["length"].tolist()) == ((1, RATE), [len(TUNE)])


def test_the_dimension_that_counts_frames_is_known_by_its_name() -> None:
    made = front_end(port("x", 40, "time"), layout="mels-frames", **MEL)
    feed = made.feed(TUNE)
    assert made.sizes(feed) == {"time": feed["x"].shape[2]}
    assert front_end(port("x", 500, 40), **MEL).sizes({"x": np.zeros((1, 500, 40))}) == {}


def test_a_sound_too_short_for_a_frame_is_padded_with_silence() -> None:
    for samples in (1, 100, 1_000):
        made = front_end(port("x", "frames", 40), **MEL)
        feed = made.feed(np.ones(samples, np.float32))
        assert feed["x"].shape[1] == made.frames(samples) == 11


def test_a_graph_may_take_less_than_a_tenth_of_a_second() -> None:
    feed = front_end(port("x", 512), LENGTH, length="length").feed(np.ones(100, np.float32))
    assert (feed["x"].shape, feed["length"].tolist()) == ((1, 512), [100])


@pytest.mark.parametrize(
    ("inputs", "fields", "reason"),
    [
        ([port("x", "frames", 80)], MEL, r"sound\.log_mel\.mels: x takes 80 in the layout frames-mels"),
        ([port("x", 2**40)], {}, r"sound\.input: x takes 1099511627776 frames"),
        ([port("x", 2, 40)], MEL, r"sound\.input: x takes 2 frames"),
        ([port("x", 0)], {}, r"sound\.input: x takes 0 frames"),
        ([port("x", 40)], MEL, r"sound\.features: x has the shape .*\[rows, frames, mels\] is made"),
        ([port("x", 2, "samples")], {}, r"sound\.features: x has the shape"),
        ([port("x", "a"), port("y", "b")], {}, r"sound\.input: name one of .*: x, y"),
        ([port("x", "a"), port("y", "b")], {"input": "x"}, "sound: the graph takes y too"),
        ([port("x", "a"), LENGTH], {}, "sound: the graph takes length too"),
        ([port("x", "a", datatype="INT16", dtype=np.int16)], {}, r"sound\.input: name one of .*: none"),
        (
            [port("x", "a"), port("n", 2, datatype="INT64")],
            {"length": "n"},
            r"sound\.length: n must have one dimension",
        ),
    ],
)
def test_a_graph_that_takes_something_else_is_an_error(inputs: list[Port], fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        front_end(*inputs, **fields)


def test_buckets_that_would_pass_for_sound_are_refused() -> None:
    with pytest.raises(ValueError, match=r"batching\.buckets\.samples: .* not told the length"):
        front_end(port("x", "samples"), buckets=("samples",))
    assert front_end(port("x", "samples"), LENGTH, buckets=("samples",), length="length").bucketed
    assert not front_end(port("x", "samples"), buckets=("others",)).bucketed


@pytest.mark.parametrize(
    ("key", "value"),
    [("most_s", float("inf")), ("overlap_s", float("inf")), ("window_s", 1e9), ("log_mel", {"hop_samples": 2**40})],
)
def test_sizes_beyond_all_bounds_are_an_error_of_their_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"sound\.{key}"):
        read_fields({"sound": {key: value}})
