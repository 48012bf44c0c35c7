"""Decode runs of fixed sizes; on a CPU they are run, not recorded."""

import numpy as np
import pytest

from services.worker.generation.decoder import Chunk
from services.worker.generation.paged.captured import sizes
from tests.models import Llama
from tests.worker.generation.paged.oracle import decode, logits, paged_decoder, prefill, text, whole

CLOSE = 1e-4
SHAPE = Llama(dialect="paged", precision="fp32", slots=6)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 6])
def test_any_number_of_rows_decodes_in_a_run_of_fixed_size(rows: int) -> None:
    decoder = paged_decoder(SHAPE, captures=True)
    texts = [text(5 + 9 * row, row) for row in range(rows)]
    for row, token_ids in enumerate(texts):
        prefill(decoder, row, token_ids[:-1])
    for _ in range(20):
        decode(decoder, texts)
        for row, token_ids in enumerate(texts):
            assert logits(decoder, row) == pytest.approx(whole(token_ids)[-1], abs=CLOSE)
        texts = [np.append(token_ids, logits(decoder, row).argmax()) for row, token_ids in enumerate(texts)]


def test_rows_that_left_do_not_write_to_blocks_that_others_have_now() -> None:
    decoder = paged_decoder(SHAPE, captures=True)
    texts = [text(20 + row, row) for row in range(5)]
    for row, token_ids in enumerate(texts):
        prefill(decoder, row, token_ids[:-1])
    decode(decoder, texts)
    decoder.close(4)
    for row, token_ids in enumerate(texts[:3]):
        decoder.reserve(row, len(token_ids) + 1)
    new = text(40, 9)
    decode(decoder, [np.append(token_ids, 3) for token_ids in texts[:4]])
    prefill(decoder, 4, new)
    decode(decoder, [np.append(token_ids, (3, 4)) for token_ids in texts[:3]])
    assert logits(decoder, 2) == pytest.approx(whole(np.append(texts[2], (3, 4)))[-1], abs=CLOSE)
    longer = np.append(new, 8)
    decoder.move(4, 3, len(new))
    decode(decoder, [*(np.append(token_ids, (3, 4, 5)) for token_ids in texts[:3]), longer])
    assert logits(decoder, 3) == pytest.approx(whole(longer)[-1], abs=CLOSE)


def test_steps_with_chunks_run_beside_those_of_fixed_size() -> None:
    decoder, old, new = paged_decoder(SHAPE, captures=True), text(20, 1), text(30, 2)
    prefill(decoder, 0, old[:-1])
    decoder.open(1, new)
    decode(decoder, [old], [Chunk(1, new, 0, True)])
    decode(decoder, [np.append(old, 7), np.append(new, 7)])
    assert logits(decoder, 0) == pytest.approx(whole(np.append(old, 7))[-1], abs=CLOSE)
    assert logits(decoder, 1) == pytest.approx(whole(np.append(new, 7))[-1], abs=CLOSE)


@pytest.mark.parametrize(
    ("rows", "expected"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (256, [1 << p for p in range(9)])]
)
def test_there_is_a_run_for_each_power_of_two_and_for_all_rows(rows: int, expected: list[int]) -> None:
    assert sizes(rows) == expected
