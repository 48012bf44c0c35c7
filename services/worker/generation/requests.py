"""The engine's border to protobuf on the way in: a GenerateRequest as something to run."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.message import DecodeError

from millrace.engine import Failure
from millrace.errors import Code
from millrace.v1.generation_pb2 import GenerateRequest
from services.worker.generation.config import ModelConfig
from services.worker.generation.task import Sampling, Stopping, Task
from services.worker.generation.text.chat import ChatError, ChatTemplate
from services.worker.generation.text.vocabulary import Vocabulary


class Rejected(Exception):
    """The request cannot be run."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def invalid(field: str, message: str, reason: str = "INVALID_REQUEST") -> Rejected:
    return Rejected(Failure(code=Code.INVALID_ARGUMENT, reason=reason, message=message, field=field))


def decode(body: bytes) -> GenerateRequest:
    """Raises `Rejected`."""
    try:
        return GenerateRequest.FromString(body)
    except DecodeError:
        raise invalid("", "the request is not a GenerateRequest") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parser:
    """For the requests to one model."""

    config: ModelConfig
    vocabulary: Vocabulary
    chat_template: ChatTemplate | None

    def parse(self, lease: str, request: GenerateRequest, *, submitted_at: float = 0.0) -> Task:
        """`submitted_at`: the moment that a chat template takes for the present, in seconds since 1970. Raises
        `Rejected`."""
        prompt_ids = self._prompt(request, submitted_at)
        reporting = request.reporting
        return Task(
            lease=lease,
            prompt_ids=prompt_ids,
            sampling=self._sampling(request),
            stopping=self._stopping(request, len(prompt_ids)),
            completions=max(request.sampling.num_completions, 1),
            logprobs=reporting.logprobs if reporting.HasField("logprobs") else None,
            prompt_logprobs=reporting.prompt_logprobs if reporting.HasField("prompt_logprobs") else None,
        )

    def _prompt(self, request: GenerateRequest, submitted_at: float) -> tuple[int, ...]:
        kind = request.WhichOneof("prompt") or "text"
        field = "tokens.ids" if kind == "tokens" else kind
        token_ids: Sequence[int] = request.tokens.ids
        if kind != "tokens":
            pieces = self._render(request, submitted_at) if kind == "conversation" else [request.text]
            self._check_texts(field, pieces)
            token_ids = [token for piece in pieces for token in self.vocabulary.encode(piece, special=kind == "text")]
        bos = self.config.decoder.bos_token_id
        if not token_ids and bos is None:
            raise invalid(field, "the prompt is empty, and the model has no token to begin with", "PROMPT_EMPTY")
        if len(token_ids) >= self.config.context_length:
            raise self._too_long(field, str(len(token_ids)))
        self._check_ids(field, token_ids)
        return tuple(token_ids) or (bos or 0,)

    def _render(self, request: GenerateRequest, submitted_at: float) -> list[str]:
        """Pieces that are encoded each on its own, so that no content can spell a special token."""
        if self.chat_template is None:
            raise invalid("conversation", "the model has no chat template; send text or tokens", "NO_CHAT_TEMPLATE")
        try:
            said = [(message.role, message.content) for message in request.conversation.messages]
            now = datetime.fromtimestamp(submitted_at, UTC)
            return self.chat_template.pieces(said, self.vocabulary.special_tokens, now=now)
        except ChatError as error:
            raise invalid("conversation", str(error)) from None

    def _sampling(self, request: GenerateRequest) -> Sampling:
        sampling, defaults = request.sampling, self.config.defaults
        self._check_ids("sampling.logit_bias", list(sampling.logit_bias))
        return Sampling(
            temperature=sampling.temperature if sampling.HasField("temperature") else defaults.temperature,
            top_k=sampling.top_k if sampling.HasField("top_k") else defaults.top_k,
            top_p=sampling.top_p if sampling.HasField("top_p") else defaults.top_p,
            min_p=sampling.min_p if sampling.HasField("min_p") else defaults.min_p,
            seed=sampling.seed,
            repetition_penalty=sampling.repetition_penalty if sampling.HasField("repetition_penalty") else 1.0,
            frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty,
            logit_bias=tuple(sorted(sampling.logit_bias.items())),
        )

    def _stopping(self, request: GenerateRequest, prompt_tokens: int) -> Stopping:
        """A constrained text ends where its format does: there ignore_eos and min_tokens mean nothing."""
        stopping, room = request.stopping, self.config.context_length - prompt_tokens
        constrained = request.output_format.WhichOneof("format") is not None
        self._check_ids("stopping.stop_token_ids", stopping.stop_token_ids)
        if stopping.HasField("max_tokens") and stopping.max_tokens == 0:
            raise invalid("stopping.max_tokens", "must be at least 1")
        wanted = stopping.max_tokens or self.config.defaults.max_tokens or room
        eos_ids = self.config.decoder.eos_token_ids if constrained or not stopping.ignore_eos else ()
        return Stopping(
            max_tokens=min(wanted, room),
            min_tokens=0 if constrained else stopping.min_tokens,
            stop_strings=tuple(stopping.stop_strings),
            stop_ids=tuple(dict.fromkeys((*eos_ids, *stopping.stop_token_ids))),
            include_stop_string=stopping.include_stop_string,
        )

    def _check_texts(self, field: str, texts: Sequence[str]) -> None:
        at_least = -(-sum(map(len, texts)) // self.vocabulary.longest_token)
        if at_least >= self.config.context_length:
            raise self._too_long(field, f"at least {at_least}")

    def _check_ids(self, field: str, token_ids: Sequence[int]) -> None:
        worst, size = max(token_ids, default=0), self.config.decoder.vocabulary_size
        if worst >= size:
            raise invalid(field, f"token id {worst} is not below the vocabulary's size, {size}")

    def _too_long(self, field: str, tokens: str) -> Rejected:
        longest = self.config.context_length - 1
        message = f"the prompt has {tokens} tokens, and the model takes at most {longest} to have room for one more"
        return invalid(field, message, "PROMPT_TOO_LONG")
