"""Rounds in which some fail."""

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from rich.console import Console

from bench.completions import Completions
from bench.generation.contestants import BARE_NAME, FP32, SERVICE, VLLM_NAME
from bench.generation.judge import Results, column, rate
from bench.generation.stage import Contestant, Measure, Stage, check, share_alike
from bench.generation.workloads import Requests
from bench.run import Progress

REQUESTS = Requests(prompts=[[1], [2]], tokens=[2, 3], callers=1)
WARM = Requests(prompts=[[9]], tokens=[1], callers=1)


def completions(seconds: float = 1.0, token_ids: list[list[int]] | None = None) -> Completions:
    token_ids = token_ids or [[5, 6], [7, 8, 9]]
    return Completions(
        seconds=seconds,
        sent_s=[0.0] * len(token_ids),
        times_s=[[0.1 * (at + 1) for at in range(len(ids))] for ids in token_ids],
        token_ids=token_ids,
    )


class Player:
    """Answers what it is given, one entry a round; raises what is an error."""

    def __init__(self, name: str, *answers: Completions | Exception, precision: str = FP32) -> None:
        self.asked: list[Requests] = []
        self.is_open = False
        self._answers = list(answers)
        self.contestant = Contestant(name, precision, self._open)

    @asynccontextmanager
    async def _open(self, workload: str) -> AsyncIterator[Measure]:
        self.is_open = True
        yield self._measure
        self.is_open = False

    async def _measure(self, requests: Requests) -> Completions:
        self.asked.append(requests)
        if requests is WARM:
            return completions(token_ids=[[1]])
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def play(*players: Player, rounds: int = 2) -> Stage:
    progress = Progress(console=Console(file=io.StringIO()))
    async with Stage(progress, "closed", [player.contestant for player in players], WARM) as stage:
        for number in range(rounds):
            await stage.round(number, REQUESTS)
    assert not any(player.is_open for player in players)
    return stage


async def test_who_fails_is_out_and_named_and_the_others_go_on() -> None:
    steady = Player(SERVICE, completions(), completions())
    broken = Player(VLLM_NAME, completions(), ValueError("Traceback:\nit has fallen over\n"))
    stage = await play(steady, broken)
    assert [len(rounds) for rounds in stage.measured.values()] == [2]
    results = Results(stage)
    assert results.rows([column(rate)]) == [(SERVICE, FP32, "5"), (VLLM_NAME, FP32, "out")]
    assert results.notes() == ["vLLM, fp32: out: it has fallen over"]


async def test_who_cannot_be_opened_is_out() -> None:
    @asynccontextmanager
    async def refuse(workload: str) -> AsyncIterator[Measure]:
        raise ValueError("not installed")
        yield

    progress = Progress(console=Console(file=io.StringIO()))
    async with Stage(progress, "closed", [Contestant(VLLM_NAME, FP32, refuse)], WARM) as stage:
        assert stage.present == []
        await stage.round(0, REQUESTS)
    assert list(stage.failures.values()) == ["not installed"]


async def test_all_take_turns_at_being_first_and_servers_are_warmed() -> None:
    order: list[str] = []

    class Noting(Player):
        async def _measure(self, requests: Requests) -> Completions:
            if requests is not WARM:
                order.append(self.contestant.name)
            return await super()._measure(requests)

    players = [Noting(name, completions(), completions()) for name in ("a", "b")]
    await play(*players)
    assert order == ["a", "b", "b", "a"]
    assert all(player.asked[0] is WARM for player in players)


async def test_ratios_are_taken_within_each_round() -> None:
    stage = await play(
        Player(SERVICE, completions(1.0), completions(4.0)),
        Player(BARE_NAME, completions(2.0), completions(2.0)),
    )
    results = Results(stage)
    (figure,) = results.figure("", rate, "tokens/s", FP32, results.of(BARE_NAME, FP32), 0.95)
    assert figure.ratios == (2.0, 0.5)
    assert results.figure("", rate, "tokens/s", FP32, results.rival(FP32), 1.45) == []


async def test_fewer_bits_are_set_beside_bf16() -> None:
    stage = await play(
        Player(SERVICE, completions(), precision="int8"),
        Player(VLLM_NAME, completions(2.0), precision="bf16"),
        Player(VLLM_NAME, completions(4.0), precision="fp32"),
        rounds=1,
    )
    results = Results(stage)
    assert [found.seconds for found in results.rival("int8")] == [2.0]
    assert [found.seconds for found in results.rival("fp32")] == [4.0]


@pytest.mark.parametrize("token_ids", [[[5, 6]], [[5, 6], [7, 8]], [[5, 6], [7, 8, 9, 10]]])
def test_texts_of_another_length_are_an_error(token_ids: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="not as long"):
        check(REQUESTS, completions(token_ids=token_ids))


def test_texts_are_alike_to_the_last_token_or_not() -> None:
    assert share_alike(completions(), completions(token_ids=[[5, 6], [7, 8, 1]])) == 0.5
