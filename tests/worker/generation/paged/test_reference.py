"""The reference of PagedAttention against ONNX Runtime's kernel of GroupQueryAttention."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from services.worker.generation.decoder import Chunk
from services.worker.generation.paged.decoder import NO_LENGTHS, NO_TOKENS
from tests.models import Llama
from tests.worker.generation.paged.oracle import decode, logits, paged_decoder, prefill, text, whole

CLOSE = 1e-4


@pytest.mark.parametrize("chunk", [1, 7, 16, 45])
def test_a_text_in_chunks_has_the_logits_of_the_whole_text(chunk: int) -> None:
    token_ids = text(45)
    assert prefill(paged_decoder(), 0, token_ids, chunk=chunk) == pytest.approx(whole(token_ids)[-1], abs=CLOSE)


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_rows_that_decode_beside_chunks_have_the_logits_of_their_own_texts(kv_heads: int) -> None:
    shape = Llama(dialect="paged", precision="fp32", kv_heads=kv_heads)
    decoder = paged_decoder(shape)
    old, new = [text(3, 1), text(64, 2)], [text(50, 3), text(40, 4)]
    for row, token_ids in enumerate(old):
        prefill(decoder, row, token_ids[:-1])
    for row, token_ids in enumerate(new, 2):
        decoder.open(row, token_ids)
    decode(decoder, old, [Chunk(2, new[0], 0, True), Chunk(3, new[1][:33], 0, False)])
    same = Llama(precision="fp32", kv_heads=kv_heads)
    for row, token_ids in enumerate([*old, new[0]]):
        assert logits(decoder, row) == pytest.approx(whole(token_ids, same)[-1], abs=CLOSE)
    longer = [np.append(token_ids, 7) for token_ids in (*old, new[0])]
    decode(decoder, longer, [Chunk(3, new[1][33:], 33, True)])
    for row, token_ids in enumerate([*longer, new[1]]):
        assert logits(decoder, row) == pytest.approx(whole(token_ids, same)[-1], abs=CLOSE)


@pytest.mark.parametrize(
    "attributes",
    [{"local_window_size": 9}, {"softcap": 2.0}, {"rotary_interleaved": 1}, {"scale": 0.1}, {"do_rotary": 0}],
    ids=lambda attributes: next(iter(attributes)),
)
def test_attributes_mean_what_they_mean_to_group_query_attention(
    attributes: dict[str, Any],
) -> None:
    token_ids = text(45)
    expected = whole(token_ids, **attributes)[-1]
    assert prefill(paged_decoder(**attributes), 0, token_ids) == pytest.approx(expected, abs=CLOSE)
    assert expected != pytest.approx(whole(token_ids)[-1], abs=0.01)


def test_an_int8_cache_holds_what_group_query_attention_puts_into_its_own() -> None:
    token_ids = text(45)
    narrow = Llama(precision="fp32", kv_precision="int8")
    expected = whole(token_ids, narrow)[-1]
    decoder = paged_decoder(dataclasses.replace(narrow, dialect="paged"))
    assert prefill(decoder, 0, token_ids, chunk=45) == pytest.approx(expected, abs=CLOSE)
    assert expected != pytest.approx(whole(token_ids)[-1], abs=1e-3)


def test_all_logits_of_a_chunk_are_those_of_the_whole_text() -> None:
    decoder, token_ids = paged_decoder(), text(30)
    decoder.open(0, token_ids)
    decoder.reserve(0, 16)
    decoder.run(NO_TOKENS, NO_LENGTHS, [Chunk(0, token_ids[:16], 0, False)])
    decoder.reserve(0, 30)
    decoder.run_all(Chunk(0, token_ids[16:], 16, False))
    assert decoder.chunk_logits.owner[:14, 0] == pytest.approx(whole(token_ids)[16:], abs=CLOSE)
