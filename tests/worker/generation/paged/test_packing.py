import numpy as np

from services.worker.generation.decoder import Chunk, Lengths, TokenIds
from services.worker.generation.paged.packing import pack, select


def chunk(row: int, start: int, end: int, *, wanted: bool = False) -> Chunk:
    """Each token is its position, from 100 on."""
    return Chunk(row, np.arange(100 + start, 100 + end), start, wanted)


def decoding(*filled: int) -> tuple[TokenIds, Lengths]:
    """Rows that hold so many positions, each with its row's number as its newest token."""
    return np.arange(len(filled))[:, np.newaxis], np.array(filled, np.int32)


def test_decoding_rows_come_first_with_one_token_each_and_chunks_follow() -> None:
    packed = pack(*decoding(5, 9), [chunk(2, 16, 19), chunk(4, 0, 2)])
    assert packed.token_ids.tolist() == [0, 1, 116, 117, 118, 100, 101]
    assert packed.rows.tolist() == [0, 1, 2, 4]
    assert packed.past.tolist() == [5, 9, 16, 0]
    assert packed.cumulative.tolist() == [0, 1, 2, 5, 7]
    assert packed.metadata.tolist() == [3, 19, 19]


def test_chunks_of_one_row_are_run_as_one() -> None:
    packed = pack(*decoding(), [chunk(0, 0, 16), chunk(0, 16, 20)])
    assert packed.rows.tolist() == [0]
    assert packed.cumulative.tolist() == [0, 20]
    assert packed.past.tolist() == [0]


def test_a_run_of_decoding_rows_alone_has_one_token_a_row() -> None:
    packed = pack(*decoding(3, 40, 7), [])
    assert packed.metadata.tolist() == [1, 41, 41]
    assert packed.longest == 41


def test_logits_are_those_of_the_last_token_of_each_row_that_wants_some() -> None:
    chunks = [chunk(1, 0, 4), chunk(1, 4, 6, wanted=True), chunk(2, 0, 3, wanted=True), chunk(3, 0, 8)]
    packed = pack(*decoding(5), chunks)
    assert select(packed, 1, chunks).tolist() == [0, 6, 9]


def test_a_row_before_one_that_wants_logits_gets_any() -> None:
    chunks = [chunk(0, 0, 3), chunk(1, 0, 2, wanted=True)]
    assert select(pack(*decoding(), chunks), 0, chunks).tolist() == [0, 4]


def test_one_token_has_logits_where_nobody_wants_any() -> None:
    chunks = [chunk(0, 0, 3)]
    assert select(pack(*decoding(), chunks), 0, chunks).tolist() == [0]
