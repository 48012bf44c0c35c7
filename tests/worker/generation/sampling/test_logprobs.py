"""Log-probabilities of output and prompt, against the logits and against the graph as it was written."""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort
import pytest
from onnx import TensorProto

from services.worker.generation.config import MOST_SCORED
from services.worker.generation.sampling.scorer import Scorer
from services.worker.session import allocate
from tests.models import TinyLlama, tokenizer
from tests.worker.generation.jobs import Ran, prompt, request, run, run_one, shared_engine, tiny_model
from tests.worker.generation.slot.test_decoder import model_config
from tests.worker.generation.watched import watched
from tests.worker.steps import leased

PROMPT = prompt(45, seed=3)
LONG = TinyLlama(graph_context_length=1024, context_length=1024, prefill_chunk_tokens=512, step_tokens=512)
Floats = npt.NDArray[np.float64]


def log_softmax(logits: npt.NDArray[Any]) -> Floats:
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))


def original(token_ids: list[int], shape: TinyLlama | None = None) -> Floats:
    """Of each position the log-probabilities of the next token, [tokens, vocabulary]."""
    settings = model_config(shape).decoder
    session = ort.InferenceSession(settings.graph, providers=["CPUExecutionProvider"])
    feeds: dict[str, npt.NDArray[Any]] = {name: np.zeros((1, 2, 0, 16), np.float32) for name, _ in settings.caches()}
    feeds |= {"input_ids": np.array([token_ids]), "attention_mask": np.ones((1, len(token_ids)), np.int64)}
    return log_softmax(session.run([settings.logits], feeds)[0][0])


@pytest.mark.parametrize("count", [0, 1, 7, 20])
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_each_token_comes_with_its_log_probability_and_the_best_ones(count: int, temperature: float) -> None:
    engine = watched(tiny_model())
    fields = {"max_tokens": 10, "temperature": temperature, "seed": 5, "repetition_penalty": 1.2}
    ran = run_one(engine, request(PROMPT, logprobs=count, **fields))
    for position, delta in enumerate(ran.deltas_of(0)):
        expected = log_softmax(engine.draws["only", position].logits)
        assert [told.token_id for told in delta.logprobs] == list(delta.token_ids)
        told = delta.logprobs[0]
        assert told.logprob == pytest.approx(expected[told.token_id], abs=1e-4)
        best = np.argsort(-expected, kind="stable")[:count]
        assert [candidate.token_id for candidate in told.top] == best.tolist()
        assert [candidate.logprob for candidate in told.top] == pytest.approx(expected[best].tolist(), abs=1e-4)


def test_tokens_come_with_their_own_bytes_even_where_they_are_half_a_character() -> None:
    ran = run_one(shared_engine(), request("🙂", max_tokens=60, temperature=2.0, seed=5, logprobs=3))
    told = [entry for delta in ran.deltas_of(0) for entry in delta.logprobs]
    assert b"".join(entry.token for entry in told).decode(errors="replace") == tokenizer().decode(ran.token_ids)
    assert any(entry.token.decode(errors="replace") == "\ufffd" for entry in told)


def test_who_does_not_ask_for_them_gets_none_beside_one_who_does() -> None:
    bodies = {
        "none": request(PROMPT, max_tokens=8),
        "some": request(PROMPT, max_tokens=8, logprobs=2),
        "many": request(PROMPT, max_tokens=8, logprobs=5, num_completions=2),
    }
    ran = run(shared_engine(), [leased(job, body) for job, body in bodies.items()])
    counts = {job: {len(e.top) for r in one.results for d in r.deltas for e in d.logprobs} for job, one in ran.items()}
    assert counts == {"none": set(), "some": {2}, "many": {5}}
    assert len({tuple(one.token_ids) for one in ran.values()}) == 1


@pytest.mark.parametrize("length", [1, 2, 16, 17, 33, 45])
def test_the_prompts_tokens_have_the_log_probabilities_of_the_graph_as_it_was_written(length: int) -> None:
    token_ids = PROMPT[:length]
    ran = run_one(shared_engine(), request(token_ids, max_tokens=4, prompt_logprobs=3))
    told = [entry for result in ran.results for entry in result.prompt_logprobs]
    expected = original(token_ids)
    assert [entry.token_id for entry in told] == token_ids
    assert (told[0].logprob, len(told[0].top)) == (0, 0)
    for position, entry in enumerate(told[1:]):
        assert entry.logprob == pytest.approx(expected[position][entry.token_id], abs=1e-4)
        best = np.argsort(-expected[position])[:3].tolist()
        assert [candidate.token_id for candidate in entry.top] == best
    assert ran.token_ids == run_one(shared_engine(), request(token_ids, max_tokens=4)).token_ids


def test_a_long_prompts_are_spread_over_the_first_results() -> None:
    token_ids = prompt(900, seed=6)
    ran = run_one(shared_engine(LONG), request(token_ids, max_tokens=3, prompt_logprobs=0))
    counts = [len(result.prompt_logprobs) for result in ran.results]
    assert sum(counts) == 900
    assert max(counts) == MOST_SCORED
    assert all(bool(count) != bool(result.deltas) for count, result in zip(counts, ran.results, strict=True))


@pytest.mark.parametrize("completions", [1, 3])
def test_a_job_that_tells_them_goes_on_from_every_prefix_of_its_log(completions: int) -> None:
    body = request(PROMPT, max_tokens=5, prompt_logprobs=1, logprobs=1, num_completions=completions)
    whole = run_one(shared_engine(), body)
    for size in range(len(whole.log)):
        rest = run_one(shared_engine(), body, whole.log[:size])
        joined = Ran(results=(*whole.results[:size], *rest.results))
        assert scores(joined) == pytest.approx(scores(whole), abs=1e-4)
        assert joined.token_ids == whole.token_ids


def scores(ran: Ran) -> list[float]:
    told = [entry for result in ran.results for entry in result.prompt_logprobs]
    told += [entry for index in range(3) for delta in ran.deltas_of(index) for entry in delta.logprobs]
    return [entry.logprob for entry in told]


def test_a_prompt_whose_beginning_is_kept_is_scored_all_the_same() -> None:
    engine = shared_engine(prefix_cache_bytes=1 << 20)
    first, again = (run_one(engine, request(PROMPT, max_tokens=2)) for _ in range(2))
    assert again.results[-1].usage.cached_prompt_tokens == 32
    scored = run_one(engine, request(PROMPT, max_tokens=2, prompt_logprobs=0))
    assert sum(len(result.prompt_logprobs) for result in scored.results) == 45
    assert scored.results[-1].usage.cached_prompt_tokens == 0
    assert scored.token_ids == first.token_ids


def test_more_candidates_than_the_vocabulary_has_are_all_of_it() -> None:
    logits = allocate((2, 1, 5), TensorProto.FLOAT, "cpu")
    logits.owner[:, 0] = [[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]
    scored = Scorer(logits, threads=1).score([1], [2], [20])
    assert [token_id for token_id, _ in scored[0].top] == [0, 1, 2, 3, 4]
