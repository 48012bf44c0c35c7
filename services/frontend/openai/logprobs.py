"""Log-probabilities, as text completions and as chat write them."""

from collections.abc import Iterable
from typing import Any

from millrace.v1.generation_pb2 import TokenLogprobs

CONTINUATION, CONTINUATION_MASK = 0x80, 0xC0
"""UTF-8: how every byte of a character begins but its first."""


def characters(token: bytes) -> int:
    """How many characters begin in it: exact over all tokens of a text, however they split a character."""
    return sum(byte & CONTINUATION_MASK != CONTINUATION for byte in token)


def for_text(scores: Iterable[TokenLogprobs], offset: int, *, first_has_none: bool = False) -> dict[str, Any]:
    """OpenAI's object for scores of tokens whose first begins at character `offset`. The first token of a prompt
    follows nothing, and has no log-probability."""
    tokens: list[str] = []
    logprobs: list[float | None] = []
    top: list[dict[str, float] | None] = []
    offsets: list[int] = []
    for score in scores:
        alone = first_has_none and not tokens
        tokens.append(_name(score.token))
        logprobs.append(None if alone else score.logprob)
        top.append(None if alone else _top(score))
        offsets.append(offset)
        offset += characters(score.token)
    return {"tokens": tokens, "token_logprobs": logprobs, "top_logprobs": top, "text_offset": offsets}


def for_chat(scores: Iterable[TokenLogprobs]) -> dict[str, Any]:
    content = [_entry(score) | {"top_logprobs": [_entry(candidate) for candidate in score.top]} for score in scores]
    return {"content": content, "refusal": None}


def _top(score: TokenLogprobs) -> dict[str, float]:
    """The likeliest tokens, and the drawn one where it is not among them."""
    top = {_name(candidate.token): candidate.logprob for candidate in score.top}
    top.setdefault(_name(score.token), score.logprob)
    return top


def _entry(score: TokenLogprobs | TokenLogprobs.Candidate) -> dict[str, Any]:
    return {
        "token": score.token.decode(errors="replace"),
        "logprob": score.logprob,
        "bytes": list(score.token),
    }


def _name(token: bytes) -> str:
    """A token that is not valid UTF-8 by its bytes, as OpenAI names it, so that no two have the same name."""
    try:
        return token.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in token)
