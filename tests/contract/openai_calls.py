"""What the openai package does and sees, unchanged, in a process of its own. Prints one JSON object.

python -m tests.contract.openai_calls HTTP_ADDRESS
"""

import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
from openai import OpenAI

PROMPT = "def fibonacci("
MESSAGES: list[Any] = [{"role": "user", "content": "the stop"}]
BURST = 8


def connect(address: str, max_retries: int = 0) -> OpenAI:
    return OpenAI(base_url=f"http://{address}/v1", api_key="none", max_retries=max_retries, timeout=30)


def refused(call: Callable[[], Any]) -> list[Any]:
    """The class of the error, with its status, the field that it blames and its message."""
    try:
        call()
    except openai.APIStatusError as error:
        return [type(error).__name__, error.status_code, error.param, error.message]
    raise AssertionError("the call was accepted")


def completions(client: OpenAI) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": "pycode", "prompt": PROMPT, "max_tokens": 8, "temperature": 0}
    whole = client.completions.create(**asked, logprobs=2, echo=True)
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    several = client.completions.create(**asked | {"prompt": [PROMPT, "class "]}, n=2, seed=7)
    chunks = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    return {
        "text": whole.choices[0].text,
        "finish": whole.choices[0].finish_reason,
        "usage": whole.usage and whole.usage.completion_tokens,
        "lengths": [len(logprobs.tokens or ()), len(logprobs.token_logprobs or ()), len(logprobs.top_logprobs or ())],
        "tokens": "".join(logprobs.tokens or ()),
        "offsets": logprobs.text_offset,
        "several": [(choice.index, choice.text) for choice in several.choices],
        "streamed": "".join(choice.text for chunk in chunks for choice in chunk.choices),
        "stream_usage": chunks[-1].usage and chunks[-1].usage.completion_tokens,
    }


def chats(client: OpenAI) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": "tiny", "messages": MESSAGES, "max_completion_tokens": 6, "temperature": 0}
    whole = client.chat.completions.create(**asked, logprobs=True, top_logprobs=2)
    scores = whole.choices[0].logprobs
    chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    deltas = [choice.delta for chunk in chunks for choice in chunk.choices]
    return {
        "chat": whole.choices[0].message.content,
        "chat_tokens": [len(score.top_logprobs) for score in (scores and scores.content) or ()],
        "chat_streamed": "".join(delta.content or "" for delta in deltas),
        "roles": [delta.role for delta in deltas if delta.role],
        "chat_usage": chunks[-1].usage and chunks[-1].usage.completion_tokens,
    }


def errors(client: OpenAI) -> dict[str, Any]:
    create = client.completions.create
    return {
        "unknown_model": refused(lambda: create(model="nothing", prompt="x")),
        "unknown_shown": refused(lambda: client.models.retrieve("nothing")),
        "wrong_temperature": refused(lambda: create(model="pycode", prompt="x", temperature=-1)),
        "too_long": refused(lambda: create(model="pycode", prompt="x " * 100_000)),
        "no_template": refused(lambda: client.chat.completions.create(model="pycode", messages=MESSAGES)),
        "no_template_streamed": refused(
            lambda: client.chat.completions.create(model="pycode", messages=MESSAGES, stream=True)
        ),
        "tools": refused(
            lambda: client.chat.completions.create(
                model="tiny", messages=MESSAGES, tools=[{"type": "function", "function": {"name": "f"}}]
            )
        ),
        "not_embedding": refused(lambda: client.embeddings.create(model="pycode", input="x")),
    }


def burst(address: str) -> dict[str, Any]:
    """More at once than the queue takes: without retries some are refused, with the client's own none is."""

    def one(client: OpenAI) -> str:
        """When to come back, where it is refused."""
        try:
            client.completions.create(model="slow", prompt="x", max_tokens=4)
        except openai.RateLimitError as error:
            return str(error.response.headers["retry-after"])
        return ""

    def all_at_once(client: OpenAI) -> list[str]:
        with ThreadPoolExecutor(BURST) as threads:
            return sorted(threads.map(one, [client] * BURST))

    return {"burst": all_at_once(connect(address)), "patient": all_at_once(connect(address, max_retries=20))}


def embeddings(client: OpenAI) -> dict[str, Any]:
    """The client asks for base64 where nothing else is said."""
    texts = ["hello you", "a text"]
    packed = client.embeddings.create(model="texts", input=texts)
    plain = client.embeddings.create(model="texts", input=texts, encoding_format="float")
    return {
        "same_vectors": [one.embedding for one in packed.data] == [one.embedding for one in plain.data],
        "widths": [len(one.embedding) for one in packed.data],
        "embedded_tokens": packed.usage.prompt_tokens,
    }


def main() -> None:
    address = sys.argv[1]
    client = connect(address)
    listed = {"models": sorted(model.id for model in client.models.list())}
    parts = (completions(client), chats(client), errors(client), burst(address), embeddings(client))
    print(json.dumps(listed | {name: value for part in parts for name, value in part.items()}))


if __name__ == "__main__":
    main()
