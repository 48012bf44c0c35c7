"""How outputs become log entries."""

from millrace.engine import Output
from millrace.queue import JobRef, Lease, ModelVersion, Priority
from millrace.queue import history as running
from millrace.v1.generation_pb2 import FINISH_REASON_STOP, CompletionDelta, GenerateResponse, TokenLogprobs, Usage
from services.worker.results import Held, emissions, merge


def held() -> Held:
    lease = Lease(
        ref=JobRef(ModelVersion("m", "1"), "default", "j"),
        token="token",
        epoch=1,
        strikes=0,
        attempts=1,
        priority=Priority.STANDARD,
        last_offset=3,
        history=b"12345678",
        cost=10,
        fingerprint="f",
        submit_ms=0,
        task="generate",
        first_take_ms=5,
        take_ms=5,
        deadline_ms=1000,
    )
    return Held(lease=lease, offset=3, history=lease.history)


def delta(text: str, *token_ids: int) -> GenerateResponse:
    return GenerateResponse(deltas=[CompletionDelta(text=text, token_ids=token_ids)])


def test_a_result_carries_its_offset_and_the_history_of_all_results_before_it() -> None:
    job = held()
    first, second = emissions(
        job, [Output(lease="default:j", result=delta("a", 1)), Output(lease="default:j", result=delta("b", 2))], "w"
    )
    assert (first.offset, second.offset) == (4, 5)
    assert first.history == running.extend(b"12345678", first.result[:-9])
    assert second.history == running.extend(first.history, second.result[:-9])
    parsed = GenerateResponse.FromString(second.result)
    assert (parsed.job_id, parsed.offset, parsed.history) == ("j", 5, running.to_field(second.history))


def test_the_history_field_ends_the_bytes_as_protobuf_itself_would_encode_it() -> None:
    (emission,) = emissions(held(), [Output(lease="default:j", result=delta("a", 1))], "w")
    parsed = GenerateResponse.FromString(emission.result)
    assert parsed.SerializeToString() == emission.result


def test_no_message_tells_of_more_than_256_tokens_of_a_prompt() -> None:
    earlier, later = (
        GenerateResponse(prompt_logprobs=[TokenLogprobs(token_id=n) for n in range(count)]) for count in (200, 57)
    )
    assert not merge(earlier, later)
    assert len(earlier.prompt_logprobs) == 200
    del later.prompt_logprobs[0]
    assert merge(earlier, later)
    assert len(earlier.prompt_logprobs) == 256


def test_later_deltas_of_a_job_merge_into_one_entry_for_each_completion() -> None:
    earlier, later = delta("he", 1), delta("llo", 2, 3)
    later.deltas[0].finish_reason = FINISH_REASON_STOP
    later.deltas[0].stop_match = "!"
    later.usage.CopyFrom(Usage(completion_tokens=3))
    assert merge(earlier, later)
    (merged,) = earlier.deltas
    assert (merged.text, list(merged.token_ids), merged.stop_match) == ("hello", [1, 2, 3], "!")
    assert merged.finish_reason == FINISH_REASON_STOP
    assert earlier.usage.completion_tokens == 3


def test_a_last_output_says_where_the_time_went() -> None:
    (emission,) = emissions(held(), [Output(lease="default:j", result=delta("a", 1), last=True)], "w")
    timing = GenerateResponse.FromString(emission.result).timing
    assert (timing.attempts, timing.worker_id, timing.queued.ToMilliseconds()) == (1, "w", 5)
    assert emission.ending is not None
