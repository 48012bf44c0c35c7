"""From keyword arguments to a GenerateRequest."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

from millrace.v1.generation_pb2 import (
    Conversation,
    GenerateRequest,
    OutputFormat,
    Reporting,
    Sampling,
    Stopping,
    TokenIds,
)
from millrace.v1.job_pb2 import (
    PRIORITY_BATCH,
    PRIORITY_INTERACTIVE,
    PRIORITY_STANDARD,
    PRIORITY_UNSPECIFIED,
    JobOptions,
    Priority,
)

Prompt: TypeAlias = str | Sequence[int] | Sequence[Mapping[str, str]]
"""A text; token ids; or a conversation of {"role": …, "content": …}."""
PriorityName: TypeAlias = Literal["batch", "standard", "interactive"]
PRIORITIES: dict[str | None, Priority.ValueType] = {
    None: PRIORITY_UNSPECIFIED,
    "batch": PRIORITY_BATCH,
    "standard": PRIORITY_STANDARD,
    "interactive": PRIORITY_INTERACTIVE,
}

SAMPLING = frozenset(field.name for field in Sampling.DESCRIPTOR.fields)
STOPPING = frozenset(field.name for field in Stopping.DESCRIPTOR.fields)
REPORTING = frozenset(field.name for field in Reporting.DESCRIPTOR.fields)
FORMATS = frozenset({"json_schema", "regex", "grammar"})


class GenerateOptions(TypedDict, total=False):
    """How a generation runs. What is left out takes the model's default; the proto says what each field means."""

    model_version: str
    temperature: float
    top_k: int
    top_p: float
    min_p: float
    repetition_penalty: float
    frequency_penalty: float
    presence_penalty: float
    seed: int
    num_completions: int
    logit_bias: Mapping[int, float]
    max_tokens: int
    min_tokens: int
    stop_strings: Sequence[str]
    stop_token_ids: Sequence[int]
    ignore_eos: bool
    include_stop_string: bool
    json_schema: str
    regex: str
    grammar: str
    choices: Sequence[str]
    logprobs: int
    prompt_logprobs: int


def make_request(model: str, prompt: Prompt, options: GenerateOptions) -> GenerateRequest:
    """The request without its JobOptions. Raises TypeError for an unknown option."""
    request = GenerateRequest(model=model, model_version=options.get("model_version", ""))
    _set_prompt(request, prompt)
    rest: dict[str, Any] = {
        name: value for name, value in options.items() if name != "model_version" and value is not None
    }
    if chosen := _select(rest, SAMPLING):
        request.sampling.CopyFrom(Sampling(**chosen))
    if chosen := _select(rest, STOPPING):
        request.stopping.CopyFrom(Stopping(**chosen))
    if chosen := _select(rest, REPORTING):
        request.reporting.CopyFrom(Reporting(**chosen))
    if chosen := _select(rest, FORMATS):
        request.output_format.CopyFrom(OutputFormat(**chosen))
    if texts := rest.pop("choices", None):
        request.output_format.choices.texts.extend(texts)
    if rest:
        raise TypeError(f"unknown options: {', '.join(sorted(rest))}")
    return request


def make_job_options(
    job_id: str, *, resume_window_s: float = 0, timeout_s: float | None = None, priority: PriorityName | None = None
) -> JobOptions:
    options = JobOptions(job_id=job_id, priority=PRIORITIES[priority])
    if resume_window_s:
        options.resume_window.FromMilliseconds(round(resume_window_s * 1000))
    if timeout_s is not None:
        options.timeout.FromMilliseconds(round(timeout_s * 1000))
    return options


def _set_prompt(request: GenerateRequest, prompt: Prompt) -> None:
    if isinstance(prompt, str):
        request.text = prompt
    elif all(isinstance(item, int) for item in prompt):
        request.tokens.CopyFrom(TokenIds(ids=[item for item in prompt if isinstance(item, int)]))
    else:
        messages = [Conversation.Message(**item) for item in prompt if isinstance(item, Mapping)]
        request.conversation.CopyFrom(Conversation(messages=messages))


def _select(options: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: options.pop(name) for name in names & options.keys()}
