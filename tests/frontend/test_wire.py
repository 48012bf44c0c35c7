"""Messages that would swell, told by their bytes alone."""

from collections.abc import Callable

import pytest

from millrace.oip.inference_pb2 import ModelInferRequest
from millrace.v1.generation_pb2 import GenerateRequest
from millrace.v1.job_service_pb2 import SubmitJobRequest
from services.frontend.wire import HARMLESS_BYTES, MOST_FIELDS, MOST_PACKED_BYTES, is_swollen, varint
from tests.fuzz import bombs
from tests.fuzz.samples import BOUNDS


def test_numbers_are_written_as_protobuf_writes_them() -> None:
    for number in (0, 1, 127, 128, 300, 2**32, 2**64 - 1):
        message = GenerateRequest()
        message.sampling.seed = number
        assert message.SerializeToString() == b"\x32" + varint(len(varint(number)) + 1) + b"\x40" + varint(number)


@pytest.mark.parametrize("bomb", [bombs.INFERS[index] for index in (0, 1, 2, 3, 4, 5)])
def test_inputs_outputs_contents_texts_and_sizes_by_the_million_are_too_many(bomb: Callable[[int], bytes]) -> None:
    assert is_swollen(bomb(BOUNDS.max_tensor_bytes - 100), ModelInferRequest.DESCRIPTOR)


def test_the_bound_is_on_the_fields_of_all_messages_together() -> None:
    turns = bombs.field(5, bombs.field(1, b"") * (MOST_FIELDS - 1))
    assert not is_swollen(turns, GenerateRequest.DESCRIPTOR)
    assert is_swollen(turns + bombs.TEXT, GenerateRequest.DESCRIPTOR)
    assert is_swollen(bombs.field(1, turns + bombs.TEXT), SubmitJobRequest.DESCRIPTOR)


def test_bytes_and_packed_reals_are_as_large_as_they_say_and_packed_numbers_are_not() -> None:
    def contents(number: int, size: int) -> bytes:
        return bombs.field(5, bombs.field(5, bombs.field(number, b"\1" * size)))

    for message, swells in (
        (bombs.field(7, b"\x3a\0" * MOST_PACKED_BYTES), False),
        (contents(6, MOST_PACKED_BYTES + 8), False),
        (contents(1, MOST_PACKED_BYTES + 8), False),
        (contents(3, MOST_PACKED_BYTES), False),
        (contents(3, MOST_PACKED_BYTES + 1), True),
        (contents(3, MOST_PACKED_BYTES // 2) * 2 + contents(2, 1), True),
    ):
        assert is_swollen(message, ModelInferRequest.DESCRIPTOR) is swells


@pytest.mark.parametrize(
    "rest", [b"", b"\xff" * 11, b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x0b", b"\x0f", b"\x0a"]
)
def test_what_is_no_message_is_left_to_protobuf(rest: bytes) -> None:
    message = bombs.field(1, b"m" * HARMLESS_BYTES) + rest
    assert not is_swollen(message, GenerateRequest.DESCRIPTOR)
