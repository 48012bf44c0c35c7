"""The engine's border to protobuf on the way out: what a job tells as responses, and what its log holds of them."""

from collections.abc import Sequence

from millrace.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    CompletionDelta,
    GenerateResponse,
    TokenLogprobs,
    Usage,
)
from services.worker.generation.job import Job
from services.worker.generation.sampling.scorer import Score
from services.worker.generation.sequence import Delta, Finish
from services.worker.generation.task import Log, Logged
from services.worker.generation.text.vocabulary import Vocabulary

REASONS = {None: FINISH_REASON_UNSPECIFIED, Finish.STOP: FINISH_REASON_STOP, Finish.LENGTH: FINISH_REASON_LENGTH}


def read_log(results: Sequence[bytes], completions: int) -> Log:
    """What the logged GenerateResponses hold together."""
    responses = [GenerateResponse.FromString(body) for body in results]
    by_index: list[list[CompletionDelta]] = [[] for _ in range(completions)]
    for response in responses:
        for delta in response.deltas:
            if delta.index < completions:
                by_index[delta.index].append(delta)
    logged = tuple(map(_read_completion, by_index))
    return Log(
        completions=logged,
        prompt_tokens=sum(len(response.prompt_logprobs) for response in responses),
        finished=all(one.finished for one in logged),
    )


def _read_completion(deltas: Sequence[CompletionDelta]) -> Logged:
    return Logged(
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token_id for delta in deltas for token_id in delta.token_ids),
        finished=any(delta.finish_reason for delta in deltas),
    )


def respond(job: Job, vocabulary: Vocabulary) -> GenerateResponse:
    """The job's news as a message, with the usage where it is the last."""
    response = GenerateResponse(
        deltas=[_delta(index, delta, vocabulary) for index, delta in sorted(job.fresh.items())],
        prompt_logprobs=[_score(score, vocabulary) for score in job.fresh_scores],
    )
    if not job.running:
        usage = Usage(
            prompt_tokens=len(job.task.prompt_ids),
            cached_prompt_tokens=job.cached_tokens,
            completion_tokens=job.completion_tokens,
            seed=job.task.sampling.seed,
        )
        response.usage.CopyFrom(usage)
    return response


def _delta(index: int, delta: Delta, vocabulary: Vocabulary) -> CompletionDelta:
    return CompletionDelta(
        index=index,
        text=delta.text,
        token_ids=delta.token_ids,
        logprobs=[_score(score, vocabulary) for score in delta.scores],
        finish_reason=REASONS[delta.finish],
        stop_match=delta.stop_match,
    )


def _score(score: Score, vocabulary: Vocabulary) -> TokenLogprobs:
    top = [
        TokenLogprobs.Candidate(token_id=token_id, logprob=logprob, token=vocabulary.bytes_of(token_id))
        for token_id, logprob in score.top
    ]
    own = vocabulary.bytes_of(score.token_id)
    return TokenLogprobs(token_id=score.token_id, logprob=score.logprob, top=top, token=own)
