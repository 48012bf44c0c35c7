"""The tree of millrace.errors as OpenAI's error objects: a status, headers that say whether to come again, a body."""

import math
from dataclasses import dataclass

from millrace.errors import DOMAIN, Code, Exhausted, InvalidRequest, MillraceError, Violation
from services.frontend.openai.fields import to_json

STATUSES = {
    Code.CANCELLED: 499,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 400,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 409,
    Code.UNAUTHENTICATED: 401,
}
"""Everything else is 500. 409 of DATA_LOSS: the results are not those that the caller has seen."""
TYPES = {429: "rate_limit_error"}
CODES = {"MODEL_UNKNOWN": "model_not_found", "MODEL_VERSION_UNKNOWN": "model_not_found"}
"""OpenAI's own words; every other reason is told in lower case."""
NAMES = {
    "text": "prompt",
    "tokens.ids": "prompt",
    "texts": "input",
    "conversation": "messages",
    "conversation.messages": "messages",
    "sampling.num_completions": "n",
    "stopping.stop_strings": "stop",
    "stopping.ignore_eos": "ignore_eos",
    "job.job_id": "millrace-job-id",
}
"""Fields of a GenerateRequest that a caller of this API knows under another name."""
GROUPS = ("sampling.", "stopping.", "reporting.")
FORMAT = "output_format"
MESSAGE_CHARACTERS, FIELD_CHARACTERS = 2_000, 200
UNAVAILABLE_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """What is sent for an error."""

    status: int
    headers: dict[str, str]
    body: bytes


def to_refusal(error: MillraceError) -> Refusal:
    status = STATUSES.get(error.code, 500)
    return Refusal(status=status, headers=_headers(error), body=to_json(describe(error)).encode())


def describe(error: MillraceError) -> dict[str, object]:
    """The error object, which also ends a stream of events."""
    status = STATUSES.get(error.code, 500)
    kind = TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    told = {
        "message": _message(error)[:MESSAGE_CHARACTERS],
        "type": kind,
        "param": _param(error),
        "code": CODES.get(error.reason, error.reason.lower()),
    }
    return {"error": told}


def _message(error: MillraceError) -> str:
    if not isinstance(error, InvalidRequest):
        return error.message
    return "; ".join(_sentence(violation) for violation in error.violations)


def _sentence(violation: Violation) -> str:
    name = to_name(violation.field)
    return f"{name}: {violation.description}" if name else violation.description


def _param(error: MillraceError) -> str | None:
    if isinstance(error, InvalidRequest):
        return to_name(error.violations[0].field) or None
    return "model" if error.reason in CODES or error.code is Code.UNIMPLEMENTED else None


def to_name(field: str) -> str:
    """A field of a GenerateRequest as this API calls it; what is of this API already stays as it is."""
    path, bracket, rest = field[:FIELD_CHARACTERS].partition("[")
    if path.startswith(FORMAT):
        return "response_format"
    if path in NAMES:
        return NAMES[path] + bracket + rest
    group = next((group for group in GROUPS if path.startswith(group)), "")
    return path.removeprefix(group) + bracket + rest


def _headers(error: MillraceError) -> dict[str, str]:
    """`x-should-retry` is what OpenAI's clients obey before the status. A frontend that cannot serve lets go of the
    connection, so that the next try may reach another."""
    headers = {"x-should-retry": "true" if error.retryable else "false"}
    if error.code is Code.UNAUTHENTICATED:
        return headers | {"www-authenticate": f'Bearer realm="{DOMAIN}"'}
    if isinstance(error, Exhausted):
        return headers | _retry_after(error.retry_after_s)
    if error.code is Code.UNAVAILABLE:
        return headers | _retry_after(UNAVAILABLE_RETRY_S) | {"connection": "close"}
    return headers


def _retry_after(seconds: float) -> dict[str, str]:
    return {"retry-after": str(math.ceil(seconds)), "retry-after-ms": str(round(seconds * 1000))}
