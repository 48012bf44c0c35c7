"""A request's body becomes GenerateRequests, one for each prompt, and how their answer is to be written.

What is unset takes the model's own defaults, the temperature and the number of tokens too. Fields that nobody here
knows are ignored, as other servers of this API do; those that would change the answer are refused.
"""

from dataclasses import dataclass

from millrace.v1.generation_pb2 import Conversation, GenerateRequest, Reporting, Sampling, Stopping, TokenIds
from services.frontend.openai.fields import UINT64, Fields, are_tokens
from services.frontend.openai.formats import read_format
from services.frontend.rules import MAX_LOGPROBS

MOST_PROMPTS = 16
REFUSED: dict[str, tuple[object, ...]] = {
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "audio": (),
    "modalities": (["text"],),
    "suffix": ("",),
    "web_search_options": (),
    "use_beam_search": (False,),
    "prompt_embeds": (),
    "truncate_prompt_tokens": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "add_generation_prompt": (True,),
    "continue_final_message": (False,),
}
"""Fields that would change the answer, with the values that would not."""
NUMBERS = ("temperature", "top_p", "min_p", "repetition_penalty", "frequency_penalty", "presence_penalty")
SYSTEM_ROLES = ("developer",)
"""What OpenAI calls a system's message now, and chat templates do not know."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What one body asks for."""

    requests: tuple[GenerateRequest, ...]
    completions: int
    """Of each request."""
    stream: bool
    with_usage: bool
    """Of a stream: its last event but one tells the usage."""
    echoes: tuple[str | None, ...] = ()
    """For each request whose prompt is to stand before its completions: the prompt; None where it was tokens, whose
    text comes with their log-probabilities. Empty: no echo."""
    prompt_only: bool = False
    """Nothing is to be generated: the one token that is goes no further."""


def read_completions(fields: Fields) -> Wanted:
    """Raises InvalidRequest."""
    prompts = _read_prompts(fields)
    wanted = _read_common(fields)
    echo, logprobs = fields.flag("echo"), fields.whole("logprobs", most=MAX_LOGPROBS)
    prompt_only = echo and fields.get("max_tokens") == 0
    if wanted.stream and len(prompts) > 1:
        fields.refuse("prompt", "must be one prompt where stream is true")
    if wanted.stream and echo and (prompt_only or logprobs is not None or not isinstance(prompts[0], str)):
        fields.refuse("echo", "streams the text of a prompt; log-probabilities and token ids need stream: false")
    reporting = Reporting(logprobs=logprobs)
    if echo and logprobs is not None:
        reporting.prompt_logprobs = logprobs
    requests = [_with_prompt(wanted.requests[0], prompt, reporting, echo=echo) for prompt in prompts]
    if prompt_only:
        for request in requests:
            request.stopping.max_tokens = 1
    return Wanted(
        requests=tuple(requests),
        completions=wanted.completions,
        stream=wanted.stream,
        with_usage=wanted.with_usage,
        echoes=tuple(prompt if isinstance(prompt, str) else None for prompt in prompts) if echo else (),
        prompt_only=prompt_only,
    )


def read_chat(fields: Fields) -> Wanted:
    """Raises InvalidRequest."""
    wanted = _read_common(fields)
    request = wanted.requests[0]
    messages = [_read_message(message) for message in fields.objects("messages")]
    request.conversation.messages.extend(messages)
    request.conversation.SetInParent()
    top = fields.whole("top_logprobs", most=MAX_LOGPROBS)
    if fields.flag("logprobs"):
        request.reporting.logprobs = top or 0
    elif top is not None:
        fields.refuse("top_logprobs", "needs logprobs: true")
    return wanted


def _read_common(fields: Fields) -> Wanted:
    """All but the prompt, in one request."""
    for name, neutral in REFUSED.items():
        if (value := fields.get(name)) is not None and value not in neutral:
            fields.refuse(name, "is not supported")
    completions = fields.whole("n") if fields.get("n") is not None else None
    if fields.get("best_of") not in (None, completions or 1):
        fields.refuse("best_of", "must be n, or left out")
    name, _, version = fields.required("model").partition("/")
    request = GenerateRequest(model=name, model_version=version, output_format=read_format(fields))
    request.sampling.CopyFrom(_read_sampling(fields))
    request.stopping.CopyFrom(_read_stopping(fields))
    options = fields.inner("stream_options") or Fields({})
    return Wanted(
        requests=(request,),
        completions=completions or 1,
        stream=fields.flag("stream"),
        with_usage=options.flag("include_usage"),
    )


def _read_sampling(fields: Fields) -> Sampling:
    sampling = Sampling(num_completions=fields.whole("n"))
    for name in NUMBERS:
        if (value := fields.number(name)) is not None:
            setattr(sampling, name, value)
    top_k = fields.whole("top_k", least=-1)
    if top_k is not None:
        sampling.top_k = max(top_k, 0)
    seed = fields.whole("seed", least=-(1 << 63), most=UINT64)
    if seed is not None:
        sampling.seed = seed & UINT64
    for token, bias in fields.weights("logit_bias").items():
        sampling.logit_bias[token] = bias
    return sampling


def _read_stopping(fields: Fields) -> Stopping:
    asked = [fields.whole(name) for name in ("max_completion_tokens", "max_tokens")]
    return Stopping(
        max_tokens=next((most for most in asked if most is not None), None),
        min_tokens=fields.whole("min_tokens"),
        stop_strings=fields.texts("stop"),
        stop_token_ids=fields.tokens("stop_token_ids"),
        ignore_eos=fields.flag("ignore_eos"),
        include_stop_string=fields.flag("include_stop_str_in_output"),
    )


def _read_prompts(fields: Fields) -> list[str | list[int]]:
    """A text, tokens, or an array of either."""
    prompt = fields.get("prompt")
    if prompt is None:
        fields.refuse("prompt", "is required")
    prompts = prompt if isinstance(prompt, list) and not are_tokens(prompt) else [prompt]
    if not all(isinstance(one, str) or (isinstance(one, list) and are_tokens(one)) for one in prompts):
        fields.refuse("prompt", "must be a string, an array of token ids, or an array of either")
    if len(prompts) > MOST_PROMPTS:
        fields.refuse("prompt", f"must be at most {MOST_PROMPTS} prompts")
    return prompts


def _with_prompt(
    common: GenerateRequest, prompt: str | list[int], reporting: Reporting, *, echo: bool
) -> GenerateRequest:
    request = GenerateRequest()
    request.CopyFrom(common)
    request.reporting.CopyFrom(reporting)
    if isinstance(prompt, str):
        request.text = prompt
        return request
    request.tokens.CopyFrom(TokenIds(ids=prompt))
    if echo and not reporting.HasField("prompt_logprobs"):
        request.reporting.prompt_logprobs = 0
    return request


def _read_message(message: Fields) -> Conversation.Message:
    """Raises InvalidRequest for what no template is given: calls of tools, and parts that are no text."""
    if message.get("tool_calls"):
        message.refuse("tool_calls", "is not supported")
    role = message.required("role")
    return Conversation.Message(role="system" if role in SYSTEM_ROLES else role, content=_read_content(message))


def _read_content(message: Fields) -> str:
    if not isinstance(message.get("content"), list):
        return message.text("content") or ""
    parts = message.objects("content")
    for part in parts:
        if part.required("type") != "text":
            part.refuse("type", "must be text")
    return "\n".join(part.text("text") or "" for part in parts)
