"""The paged decoder, with the reference in the place of the operator."""

import dataclasses

import numpy as np
import pytest

from services.worker.generation.decoder import Chunk
from services.worker.generation.paged.decoder import NO_LENGTHS, NO_TOKENS, PagedDecoder, fastest_block_size
from tests.models import Llama
from tests.worker.generation.paged.oracle import (
    BLOCK,
    PAGED,
    decode,
    logits,
    paged_config,
    paged_decoder,
    prefill,
    text,
    whole,
)
from tests.worker.generation.paged.reference import with_reference

CLOSE = 1e-4


def test_a_beginning_that_is_there_is_not_computed_again_and_gives_the_same_logits() -> None:
    decoder, shared = paged_decoder(), text(40)
    first, second = (np.concatenate([shared, text(9, seed)]) for seed in (1, 2))
    prefill(decoder, 0, first)
    assert decoder.open(1, second) == 32
    assert prefill(decoder, 1, second) == pytest.approx(whole(second)[-1], abs=CLOSE)
    assert decoder.blocks_in_use == 4 + 2
    decoder.close(0)
    decoder.close(1)
    assert decoder.blocks_in_use == 0
    assert prefill(decoder, 2, first) == pytest.approx(whole(first)[-1], abs=CLOSE)
    assert decoder.counters() == {"prefix_cache_queried_tokens": 4 * 49, "prefix_cache_hit_tokens": 32 + 32 + 48}
    assert (decoder.queried_tokens, decoder.hit_tokens) == (196, 112)


def test_forked_rows_go_on_as_if_each_had_the_text_alone() -> None:
    decoder, shared = paged_decoder(), text(20)
    prefill(decoder, 0, shared)
    for row in (1, 2):
        decoder.fork(0, row, 20)
    assert decoder.blocks_in_use == 2
    texts = [np.append(shared, token) for token in (5, 6, 7)]
    for _ in range(14):
        decode(decoder, texts)
        for row, token_ids in enumerate(texts):
            assert logits(decoder, row) == pytest.approx(whole(token_ids)[-1], abs=CLOSE)
        texts = [np.append(token_ids, logits(decoder, row).argmax()) for row, token_ids in enumerate(texts)]
    assert decoder.blocks_in_use == 1 + 3 * 2


def test_a_row_goes_on_in_another_place_after_a_move() -> None:
    decoder, token_ids = paged_decoder(), text(33)
    prefill(decoder, 3, token_ids[:-1])
    decoder.move(3, 0, 32)
    decode(decoder, [token_ids])
    assert logits(decoder, 0) == pytest.approx(whole(token_ids)[-1], abs=CLOSE)
    assert decoder.blocks_in_use == 3


def test_without_memory_for_a_row_nothing_changes_until_another_leaves() -> None:
    decoder = paged_decoder(blocks=8)
    first, second = text(110, 1), text(20, 2)
    prefill(decoder, 0, first)
    decoder.open(1, second)
    assert decoder.room == BLOCK
    assert not decoder.reserve(1, 20)
    assert (decoder.room, decoder.blocks_in_use, decoder.blocks_total) == (BLOCK, 7, 8)
    assert logits(decoder, 0) == pytest.approx(whole(first)[-1], abs=CLOSE)
    decoder.close(0)
    assert prefill(decoder, 1, second) == pytest.approx(whole(second)[-1], abs=CLOSE)


def test_guesses_that_were_wrong_leave_no_trace() -> None:
    decoder, token_ids = paged_decoder(), text(40)
    prefill(decoder, 0, token_ids[:28])
    wrong = np.append(token_ids[28:30], text(8, 9))
    assert decoder.reserve(0, 38)
    decoder.run_all(Chunk(0, wrong, 28, False))
    assert decoder.chunk_logits.owner[:2, 0] == pytest.approx(whole(token_ids[:30])[28:], abs=CLOSE)
    for end in range(31, 41):
        decode(decoder, [token_ids[:end]])
    assert logits(decoder, 0) == pytest.approx(whole(token_ids)[-1], abs=CLOSE)
    assert decoder.open(1, token_ids) == 32
    assert decoder.open(2, np.concatenate([token_ids[:28], wrong])) == 16


def test_numbers_that_are_none_stay_in_the_row_that_has_them() -> None:
    decoder = paged_decoder(Llama(dialect="paged", precision="fp32", nan_token_id=299), blocks=8)
    sick, well = np.append(text(20, 1) % 290, 299), text(21, 2) % 290
    prefill(decoder, 0, sick)
    decode(decoder, [np.append(sick, 3)], [Chunk(1, well, 0, True)])
    assert np.isnan(logits(decoder, 0)).all()
    assert logits(decoder, 1) == pytest.approx(whole(well)[-1], abs=CLOSE)
    decoder.close(0)
    decoder.close(1)
    for seed in range(3):
        assert np.isfinite(prefill(decoder, 0, text(120, seed) % 290)).all()


def test_the_logits_of_a_row_that_wants_none_are_not_computed() -> None:
    decoder = paged_decoder()
    for row in range(2):
        decoder.open(row, text(20, row))
        decoder.reserve(row, 20)
    decoder.run(NO_TOKENS, NO_LENGTHS, [Chunk(0, text(20, 0), 0, True), Chunk(1, text(20, 1)[:16], 0, False)])
    assert logits(decoder, 0).any()
    assert not logits(decoder, 1).any()


def test_a_run_of_nothing_is_none() -> None:
    paged_decoder().run(NO_TOKENS, NO_LENGTHS, [])


def test_blocks_and_logits_are_all_that_sequences_take_up() -> None:
    caches, rows = 4 * (10 + 1) * BLOCK * 2 * 16 * 4, 4 + paged_config().longest_run
    assert paged_decoder(blocks=10).memory_bytes == caches + rows * 320 * 4


def test_unless_told_otherwise_each_row_has_blocks_for_a_whole_context() -> None:
    decoder = PagedDecoder(paged_config(), device="cpu", threads=1, transform=with_reference)
    assert decoder.blocks_total * decoder.table.block_size == PAGED.slots * PAGED.context_length
    assert decoder.room == PAGED.slots * PAGED.context_length


def test_more_rows_than_the_kernel_takes_are_refused() -> None:
    with pytest.raises(ValueError, match="256 rows at most, not 257"):
        PagedDecoder(dataclasses.replace(paged_config(), slots=257), device="cuda", threads=1)


def test_on_a_cpu_the_graph_is_refused_with_a_reason() -> None:
    with pytest.raises(ValueError, match="runs on a GPU"):
        PagedDecoder(paged_config(), device="cpu", threads=1)


def test_memory_for_less_than_one_context_is_refused() -> None:
    with pytest.raises(ValueError, match="7 blocks of 16 positions do not hold a context of 128"):
        paged_decoder(blocks=7)


@pytest.mark.parametrize(
    ("head_size", "context_length", "block_size"),
    [(64, 8192, 256), (128, 8192, 128), (256, 8192, 64), (64, 100, 64), (64, 7, 16)],
)
def test_a_block_is_a_power_of_two_that_fills_a_tile_and_no_more_than_a_context_needs(
    head_size: int, context_length: int, block_size: int
) -> None:
    assert fastest_block_size(head_size, context_length) == block_size
