"""The engine over the paged decoder: it makes the texts that it makes over slots."""

from typing import Any

import pytest

from millrace.engine import EngineContext, Work
from services.worker.generation import GenerationEngine, decoders
from services.worker.generation.config import ModelConfig
from services.worker.generation.paged import PagedDecoder
from tests.models import Llama
from tests.worker.generation.jobs import Ran, prompt, request, run, run_one, tiny_model
from tests.worker.generation.paged.reference import with_reference
from tests.worker.steps import leased

BLOCK, CONTEXT_BLOCKS = 16, 8
WHOLE = Llama(precision="fp32")
PAGED = Llama(precision="fp32", dialect="paged")


def over_slots(**changed: Any) -> GenerationEngine:
    return engine(WHOLE, changed)


def over_blocks(*, blocks: int | None = None, **changed: Any) -> GenerationEngine:
    """With the reference in the place of the operator. `changed`: what its model.yaml says otherwise."""

    def open_decoder(config: ModelConfig, *, device: str, threads: int) -> PagedDecoder:
        return PagedDecoder(
            config, device=device, threads=threads, transform=with_reference, blocks=blocks, block_size=BLOCK
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decoders, "open_decoder", open_decoder)
        return engine(PAGED, {"prefix_cache_bytes": 1} | changed)


def engine(shape: Llama, changed: dict[str, Any]) -> GenerationEngine:
    model = tiny_model(shape)
    config = model.file.model_copy(update=changed).model_dump()
    return GenerationEngine(EngineContext(folder=model.folder, config=config, device="cpu", threads=1))


def works(*bodies: bytes) -> list[Work]:
    return [leased(str(index), body) for index, body in enumerate(bodies)]


def same(one: dict[str, Ran], other: dict[str, Ran], completions: int = 1) -> bool:
    return all(
        ran.failure is None and ran.tokens_of(index) == other[lease].tokens_of(index)
        for lease, ran in one.items()
        for index in range(completions)
    )


def blocks_in_use(engine: GenerationEngine) -> float:
    return engine.gauges()["kv_blocks_used"]


MIXED = [request(prompt(length, length), max_tokens=4 + length % 20) for length in (1, 16, 17, 33, 90, 3, 48, 64, 15)]


@pytest.mark.parametrize("step_tokens", [16, 40])
def test_prompts_of_all_lengths_get_the_same_texts(step_tokens: int) -> None:
    paged = over_blocks(step_tokens=step_tokens)
    assert same(run(paged, works(*MIXED)), run(over_slots(step_tokens=step_tokens), works(*MIXED)))
    assert blocks_in_use(paged) == 0


def test_where_memory_is_short_sequences_give_way_and_still_get_the_same_texts() -> None:
    paged = over_blocks(blocks=CONTEXT_BLOCKS)
    long = [request(prompt(30, seed), max_tokens=60) for seed in range(4)]
    assert same(run(paged, works(*long)), run(over_slots(), works(*long)))
    assert paged.counters()["preempted_sequences"] > 0
    assert blocks_in_use(paged) == 0


@pytest.mark.parametrize("length", [16, 17, 30])
def test_completions_of_one_prompt_share_its_blocks_and_get_the_same_texts(length: int) -> None:
    body = request(prompt(length), num_completions=3, temperature=1.0, seed=5, max_tokens=24)
    paged = over_blocks()
    assert same(run(paged, works(body)), run(over_slots(), works(body)), completions=3)
    assert blocks_in_use(paged) == 0


def test_prompts_that_begin_alike_are_computed_once() -> None:
    paged, whole = over_blocks(), over_slots()
    bodies = [request([*prompt(40), *prompt(5, seed)], max_tokens=20) for seed in (1, 2, 3)]
    for body in bodies:
        assert same({"only": run_one(paged, body)}, {"only": run_one(whole, body)})
    assert paged.counters()["prefix_cache_hit_tokens"] == 2 * 32
    assert paged.counters()["prefix_cache_queried_tokens"] == 3 * 45


def test_without_a_prefix_cache_every_prompt_is_computed() -> None:
    paged, body = over_blocks(prefix_cache_bytes=0), request(prompt(40))
    assert run_one(paged, body).token_ids == run_one(paged, body).token_ids
    assert paged.counters()["prefix_cache_hit_tokens"] == 0


def test_a_conversation_that_goes_on_finds_what_was_said() -> None:
    paged = over_blocks(speculative_tokens=0)
    first = prompt(20)
    said = run_one(paged, request(first, max_tokens=30)).token_ids
    second = request([*first, *said, *prompt(4, 9)], max_tokens=10)
    assert same({"only": run_one(paged, second)}, {"only": run_one(over_slots(), second)})
    assert paged.counters()["prefix_cache_hit_tokens"] == 48


def test_guesses_and_scores_of_prompts_make_no_difference() -> None:
    paged, whole = over_blocks(), over_slots()
    body = request(prompt(6) * 6, max_tokens=60, prompt_logprobs=1)
    one, other = run_one(paged, body), run_one(whole, body)
    assert one.token_ids == other.token_ids
    assert paged.counters()["guessed_tokens"] > 0
    assert run_one(paged, body).token_ids == one.token_ids
    assert blocks_in_use(paged) == 0


def test_the_memory_for_blocks_is_what_the_models_file_says() -> None:
    bytes_of_a_block = 2 * PAGED.layers * BLOCK * PAGED.kv_heads * PAGED.head_size * 4
    paged = over_blocks(kv_cache_bytes=20 * bytes_of_a_block + 1)
    assert isinstance(paged._decoder, PagedDecoder)
    assert paged._decoder.blocks_total == 20
    with pytest.raises(ValueError, match="7 blocks of 16 positions do not hold a context of 128"):
        over_blocks(kv_cache_bytes=8 * bytes_of_a_block - 1)
