"""The engine's border to protobuf: requests and logged responses in, responses out."""

from collections.abc import Iterable, Sequence

from google.protobuf.message import DecodeError

from millrace.engine import Failure
from millrace.errors import Code
from millrace.v1.generation_pb2 import (
    FINISH_REASON_LENGTH,
    FINISH_REASON_STOP,
    FINISH_REASON_UNSPECIFIED,
    CompletionDelta,
    GenerateRequest,
    GenerateResponse,
    Usage,
)
from services.worker.generation import sequence
from services.worker.generation.config import Defaults, ModelConfig
from services.worker.generation.rows import Sampling
from services.worker.generation.sequence import Delta, Finish, Logged, Stopping, Task
from services.worker.generation.text import Vocabulary

REASONS = {None: FINISH_REASON_UNSPECIFIED, Finish.STOP: FINISH_REASON_STOP, Finish.LENGTH: FINISH_REASON_LENGTH}


class Rejected(Exception):
    """The request cannot be run."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def parse(lease: str, body: bytes, config: ModelConfig, vocabulary: Vocabulary) -> Task:
    """A serialised GenerateRequest, as something to run. Raises `Rejected`."""
    try:
        request = GenerateRequest.FromString(body)
    except DecodeError:
        raise _invalid("", "the request is not a GenerateRequest") from None
    _refuse_unimplemented(request)
    prompt_ids = _prompt(request, config, vocabulary)
    return Task(
        lease=lease,
        prompt_ids=prompt_ids,
        sampling=_sampling(request, config.defaults),
        stopping=_stopping(request, config, len(prompt_ids)),
    )


def read_log(results: Iterable[bytes]) -> Logged:
    """What the logged GenerateResponses hold together."""
    deltas = [delta for body in results for delta in GenerateResponse.FromString(body).deltas]
    return Logged(
        text="".join(delta.text for delta in deltas),
        token_ids=tuple(token_id for delta in deltas for token_id in delta.token_ids),
        finished=any(delta.finish_reason for delta in deltas),
    )


def respond(source: "sequence.Sequence", delta: Delta) -> GenerateResponse:
    """A delta as a message, with the usage where it is the last."""
    reason = REASONS[delta.finish]
    wire = CompletionDelta(
        text=delta.text, token_ids=delta.token_ids, finish_reason=reason, stop_match=delta.stop_match
    )
    if delta.finish is None:
        return GenerateResponse(deltas=[wire])
    usage = Usage(
        prompt_tokens=len(source.task.prompt_ids),
        completion_tokens=source.completion_tokens,
        seed=source.task.sampling.seed,
    )
    return GenerateResponse(deltas=[wire], usage=usage)


def _refuse_unimplemented(request: GenerateRequest) -> None:
    sampling, reporting = request.sampling, request.reporting
    refused = {
        "conversation": request.HasField("conversation"),
        "sampling.repetition_penalty": sampling.HasField("repetition_penalty") and sampling.repetition_penalty != 1,
        "sampling.frequency_penalty": sampling.frequency_penalty != 0,
        "sampling.presence_penalty": sampling.presence_penalty != 0,
        "sampling.num_completions": sampling.num_completions > 1,
        "sampling.logit_bias": len(sampling.logit_bias) > 0,
        "output_format": request.output_format.WhichOneof("format") is not None,
        "reporting.logprobs": reporting.HasField("logprobs"),
        "reporting.prompt_logprobs": reporting.HasField("prompt_logprobs"),
    }
    for field, is_set in refused.items():
        if is_set:
            message = f"{field} is not implemented by this engine"
            raise Rejected(Failure(code=Code.UNIMPLEMENTED, reason="NOT_IMPLEMENTED", message=message))


def _prompt(request: GenerateRequest, config: ModelConfig, vocabulary: Vocabulary) -> tuple[int, ...]:
    field = "tokens.ids" if request.WhichOneof("prompt") == "tokens" else "text"
    at_least = -(-len(request.text) // vocabulary.longest_token)
    if at_least >= config.context_length:
        raise _too_long(field, f"at least {at_least}", config)
    token_ids: Sequence[int] = request.tokens.ids if field == "tokens.ids" else vocabulary.encode(request.text)
    if not token_ids and config.decoder.bos_token_id is None:
        raise _invalid(field, "the prompt is empty, and the model has no token to begin with", "PROMPT_EMPTY")
    if len(token_ids) >= config.context_length:
        raise _too_long(field, str(len(token_ids)), config)
    _check_ids(field, token_ids, config.decoder.vocabulary_size)
    return tuple(token_ids) or (config.decoder.bos_token_id or 0,)


def _sampling(request: GenerateRequest, defaults: Defaults) -> Sampling:
    sampling = request.sampling
    return Sampling(
        temperature=sampling.temperature if sampling.HasField("temperature") else defaults.temperature,
        top_k=sampling.top_k if sampling.HasField("top_k") else defaults.top_k,
        top_p=sampling.top_p if sampling.HasField("top_p") else defaults.top_p,
        min_p=sampling.min_p if sampling.HasField("min_p") else defaults.min_p,
        seed=sampling.seed,
    )


def _stopping(request: GenerateRequest, config: ModelConfig, prompt_tokens: int) -> Stopping:
    stopping, room = request.stopping, config.context_length - prompt_tokens
    _check_ids("stopping.stop_token_ids", stopping.stop_token_ids, config.decoder.vocabulary_size)
    if stopping.HasField("max_tokens") and stopping.max_tokens == 0:
        raise _invalid("stopping.max_tokens", "must be at least 1")
    wanted = stopping.max_tokens or config.defaults.max_tokens or room
    eos_ids = () if stopping.ignore_eos else config.decoder.eos_token_ids
    return Stopping(
        max_tokens=min(wanted, room),
        min_tokens=stopping.min_tokens,
        stop_strings=tuple(stopping.stop_strings),
        stop_ids=tuple(dict.fromkeys((*eos_ids, *stopping.stop_token_ids))),
        include_stop_string=stopping.include_stop_string,
    )


def _check_ids(field: str, token_ids: Sequence[int], vocabulary_size: int) -> None:
    worst = max(token_ids, default=0)
    if worst >= vocabulary_size:
        raise _invalid(field, f"token id {worst} is not below the vocabulary's size, {vocabulary_size}")


def _too_long(field: str, tokens: str, config: ModelConfig) -> Rejected:
    longest = config.context_length - 1
    message = f"the prompt has {tokens} tokens, and the model takes at most {longest} to have room for one more"
    return _invalid(field, message, "PROMPT_TOO_LONG")


def _invalid(field: str, message: str, reason: str = "INVALID_REQUEST") -> Rejected:
    return Rejected(Failure(code=Code.INVALID_ARGUMENT, reason=reason, message=message, field=field))
