from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto

from services.worker.generation.rows import Rows
from services.worker.generation.sampling.draws import uniforms
from services.worker.generation.sampling.sampler import INVALID, Sampler
from services.worker.generation.task import Sampling
from services.worker.session import allocate

VOCABULARY, SLOTS = 24, 512
LOGITS = allocate((SLOTS, 1, VOCABULARY), TensorProto.FLOAT, "cpu")
SAMPLER = Sampler(LOGITS, threads=1)
REAL = npt.NDArray[np.float64]


def sampling(
    *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0, seed: int = 0
) -> Sampling:
    return Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=seed)


def draw(
    logits: npt.ArrayLike,
    chosen: Sequence[Sampling],
    *,
    position: int = 0,
    bans: Sequence[tuple[int, Sequence[int]]] = (),
) -> npt.NDArray[np.int64]:
    """One token for each entry of `chosen`; logits [rows, vocabulary] or, the same for all, [vocabulary]."""
    rows = Rows(SLOTS)
    LOGITS.owner[: len(chosen), 0] = logits
    for slot, one in enumerate(chosen):
        rows.place(slot, one, filled=0, position=position)
    edits = SAMPLER.edits()
    for row, token_ids in bans:
        edits.ban(row, token_ids)
    return SAMPLER.sample(rows, len(chosen), edits).copy()


def allowed(logits: REAL, chosen: Sampling) -> REAL:
    """The distribution over the vocabulary, from its definition: probabilities, sorted and cut."""
    scaled = logits.astype(np.float64) / chosen.temperature
    probabilities = np.exp(scaled - scaled.max())
    probabilities /= probabilities.sum()
    order = np.argsort(-probabilities, kind="stable")
    if chosen.top_k:
        probabilities[order[chosen.top_k :]] = 0
    probabilities[probabilities < chosen.min_p * probabilities.max()] = 0
    ranked = probabilities[order]
    outside = np.cumsum(ranked) - ranked >= chosen.top_p * ranked.sum()
    if chosen.top_p < 1:
        probabilities[order[outside]] = 0
    return np.asarray(probabilities / probabilities.sum())


SPREAD = np.random.default_rng(5).permutation(np.linspace(-3.0, 3.0, VOCABULARY))


@pytest.mark.parametrize(
    "one",
    [
        sampling(),
        sampling(temperature=0.5),
        sampling(top_k=5),
        sampling(top_p=0.7),
        sampling(top_p=0.05),
        sampling(min_p=0.2),
        sampling(temperature=1.7, top_k=12, top_p=0.8, min_p=0.1),
        sampling(temperature=0.8, top_p=0.95),
    ],
    ids=repr,
)
def test_tokens_are_distributed_as_the_definition_says(one: Sampling) -> None:
    counts = np.zeros(VOCABULARY)
    for start in range(0, 20 * SLOTS, SLOTS):
        chosen = [
            sampling(temperature=one.temperature, top_k=one.top_k, top_p=one.top_p, min_p=one.min_p, seed=seed)
            for seed in range(start, start + SLOTS)
        ]
        counts += np.bincount(draw(SPREAD, chosen, position=start), minlength=VOCABULARY)
    expected = allowed(SPREAD, one)
    assert not counts[expected == 0].any()
    assert np.abs(counts / counts.sum() - expected).sum() < 0.06


@given(
    logits=st.lists(st.integers(-400, 400), min_size=VOCABULARY, max_size=VOCABULARY, unique=True),
    temperature=st.floats(0.1, 3),
    top_k=st.integers(0, 2 * VOCABULARY),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 0.9),
    seed=st.integers(0, 2**64 - 1),
)
@settings(deadline=None)
def test_no_token_outside_the_allowed_ones_is_drawn(
    logits: list[int], temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    one = sampling(temperature=temperature, top_k=top_k, top_p=top_p * 0.999, min_p=min_p, seed=seed)
    lenient = sampling(temperature=temperature, top_k=top_k, top_p=min(top_p * 1.001, 1.0), min_p=min_p * 0.999)
    token = int(draw(np.array(logits) / 100, [one])[0])
    assert allowed(np.array(logits) / 100, lenient)[token] > 0


def test_without_filters_the_token_is_the_inverse_of_the_cumulative_distribution() -> None:
    seeds = np.arange(200, dtype=np.uint64)
    none = np.zeros(200, np.uint64)
    uniform = uniforms(seeds, none, none, 1)[:, 0]
    expected = np.searchsorted(np.cumsum(allowed(SPREAD, sampling())), uniform, side="right")
    tokens = draw(SPREAD, [sampling(seed=int(seed)) for seed in seeds])
    assert (tokens == expected).mean() > 0.99


@pytest.mark.parametrize("vocabulary", [127, 128, 129, 300, 1024])
def test_the_cumulative_distribution_is_inverted_over_any_number_of_blocks(vocabulary: int) -> None:
    logits, seeds = allocate((400, 1, vocabulary), TensorProto.FLOAT, "cpu"), np.arange(400, dtype=np.uint64)
    values = np.random.default_rng(vocabulary).standard_normal(vocabulary) * 3
    logits.owner[:, 0] = values
    rows, none = Rows(400), np.zeros(400, np.uint64)
    for row in range(400):
        rows.place(row, sampling(seed=row, min_p=1e-4), filled=0, position=0)
    uniform = uniforms(seeds, none, none, 1)[:, 0]
    expected = np.searchsorted(np.cumsum(allowed(values, sampling(min_p=1e-4))), uniform, side="right")
    tokens = Sampler(logits, threads=1).sample(rows, 400)
    assert (tokens == expected).mean() > 0.99
    assert (allowed(values, sampling(min_p=1e-4))[tokens] > 0).all()


@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.3])
def test_a_row_draws_the_same_alone_and_beside_others(top_p: float) -> None:
    logits = np.random.default_rng(1).standard_normal((40, VOCABULARY)) * 2
    kinds = [sampling(top_p=top_p, seed=9), sampling(temperature=0), sampling(top_k=3, seed=2), sampling(min_p=0.3)]
    chosen = [kinds[row % 4] for row in range(40)]
    together = draw(logits, chosen)
    assert together.tolist() == [int(draw(logits[row], [chosen[row]])[0]) for row in range(40)]


def test_greedy_rows_take_the_best_token_beside_drawn_ones_and_alone() -> None:
    logits = np.random.default_rng(2).standard_normal((6, VOCABULARY))
    assert draw(logits, [sampling(temperature=0)] * 6).tolist() == logits.argmax(1).tolist()
    mixed = draw(logits, [sampling(temperature=0), sampling()] * 3)
    assert mixed[::2].tolist() == logits[::2].argmax(1).tolist()


def test_the_same_seed_and_position_draw_the_same_and_others_differ() -> None:
    flat = np.zeros(VOCABULARY)
    chosen = [sampling(seed=seed) for seed in range(100)]
    assert draw(flat, chosen).tolist() == draw(flat, chosen).tolist()
    assert draw(flat, chosen).tolist() != draw(flat, chosen, position=1).tolist()


def test_uniform_numbers_are_even_and_differ_in_each_coordinate() -> None:
    count = np.arange(300, dtype=np.uint64)
    numbers = uniforms(count, np.zeros(300, np.uint64), count * np.uint64(7), 16)
    assert numbers.shape == (300, 16)
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert np.histogram(numbers, 10, (0, 1))[0] == pytest.approx(np.full(10, 480), abs=100)
    assert len(np.unique(numbers)) > 4790
    zeros = np.zeros(1, np.uint64)
    assert uniforms(zeros, zeros + np.uint64(1), zeros, 1) != uniforms(zeros, zeros, zeros, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_not_finite_is_marked_and_the_others_are_not_touched(bad: float, temperature: float) -> None:
    logits = np.tile(SPREAD, (3, 1))
    chosen = [sampling(temperature=temperature, seed=seed) for seed in range(3)]
    before = draw(logits, chosen)
    logits[1, 7] = bad
    after = draw(logits, chosen)
    assert after[1] == INVALID
    assert after[[0, 2]].tolist() == before[[0, 2]].tolist()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_banned_tokens_are_not_drawn_in_their_row_only(temperature: float) -> None:
    best = int(SPREAD.argmax())
    others = [token for token in range(VOCABULARY) if token != best]
    chosen = [sampling(temperature=temperature)] * 2
    assert draw(SPREAD, chosen, bans=[(0, [best]), (1, others)])[1] == best
    assert (
        draw(
            SPREAD,
            [sampling(temperature=temperature, seed=s) for s in range(400)],
            bans=[(s, [best]) for s in range(400)],
        )
        .tolist()
        .count(best)
        == 0
    )


@pytest.mark.parametrize(
    "odd", [sampling(top_p=0.0), sampling(temperature=float("nan")), sampling(temperature=-1.0), sampling(min_p=2.0)]
)
def test_values_that_no_frontend_lets_through_cannot_break_the_step(odd: Sampling) -> None:
    tokens = draw(SPREAD, [sampling(top_k=3), odd])
    assert tokens[0] == draw(SPREAD, [sampling(top_k=3)])[0]
    assert 0 <= tokens[1] < VOCABULARY


def test_the_smallest_temperature_still_gives_the_best_token() -> None:
    assert draw(SPREAD * 100, [sampling(temperature=1e-30)]).tolist() == [int(SPREAD.argmax())]
