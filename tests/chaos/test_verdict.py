"""What the experiments judge by can fail: each planted fault is counted and said."""

from redis.asyncio import Redis

from millrace.errors import Code
from millrace.queue import history as running
from millrace.v1.generation_pb2 import CompletionDelta, GenerateResponse
from services.worker.stub import FIRST, stub_token
from tests.chaos.leftovers import grown, job_keys
from tests.chaos.verdict import endings, judge_by_themselves, within
from tests.survival.fleet import Transcript

TOKENS = 4


def transcript() -> Transcript:
    """Of a stub's job that one worker has done."""
    seen, history, previous = Transcript(job_id="j", prompt="go on", code=Code.OK), running.EMPTY, FIRST
    for position in range(TOKENS):
        previous = stub_token("default:j", position, previous, 1)
        message = GenerateResponse(job_id="j", offset=position + 1, deltas=[CompletionDelta(token_ids=[previous])])
        history = running.extend(history, message.SerializeToString())
        message.history = int.from_bytes(history, "little")
        seen.note(message)
    return seen


def judged(seen: Transcript) -> dict[str, int]:
    """The counts that are not zero, of what has to be."""
    counts, said = judge_by_themselves([seen])
    found = {name: count for name, count in counts.items() if count and name not in ("streams", "tokens")}
    assert bool(found) == bool(said)
    return found


def test_a_good_transcript_stands_for_its_own_log() -> None:
    assert judged(transcript()) == {}
    assert endings([transcript()], TOKENS) == []


def test_a_transcript_with_a_fault_is_counted() -> None:
    lost, repeated, swapped, foreign, hung = (transcript() for _ in range(5))
    del lost.messages[1]
    repeated.messages.insert(1, repeated.messages[1])
    swapped.messages.reverse()
    foreign.job_id = "k"
    hung.code = None
    assert judged(lost) == {"lost": 1}
    assert sum(judged(repeated).values()) == sum(judged(swapped).values()) == 1
    assert judged(foreign) == judged(hung) == {"wrong": 1}


def test_a_stream_that_ended_early_is_said() -> None:
    short = transcript()
    del short.messages[-1]
    assert endings([transcript(), short], TOKENS) == ["1 of 2 streams did not end well: j (3 tokens, OK)"]


def test_one_value_in_a_hundred_may_be_too_large() -> None:
    assert within("stall", [0.1] * 99 + [9.0] + [0.1] * 100, 4.0)[1] == []
    assert within("stall", [0.1] * 98 + [9.0] * 2, 4.0)[1] == ["stall of 100 is 9.00 s, not below 4 s"]


def test_what_there_is_more_of_than_before_is_said() -> None:
    assert grown({"tasks": 5, "keys": 0}, {"tasks": 5, "keys": 0}) == []
    assert grown({"tasks": 5, "keys": 0}, {"tasks": 4, "keys": 2}) == ["2 keys, 0 at the start"]


async def test_a_key_that_was_left_in_redis_is_found(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        await redis.hset("mr:workers", "w", "alive")
        await redis.set("mr:{m/1}:payload:default:j:0", b"left")
        assert await job_keys(redis) == ["mr:{m/1}:payload:default:j:0"]
