"""What Triton's own Python client sees of streams, in a process of its own. Prints one JSON object.

python -m tests.contract.triton_streams FRONTEND OTHER_FRONTEND DIGITS.npz
"""

import asyncio
import json
import queue
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException

from tests.contract.triton_calls import as_input

PROMPT = "def fibonacci("
GREEDY = {"temperature": 0, "max_tokens": 24}
LONG = {"temperature": 1, "seed": 1, "max_tokens": 400, "ignore_eos": True}


def text_inputs(settings: dict[str, Any], *, stream: bool, kind: Any = triton.InferInput) -> list[Any]:
    return [
        as_input("text_input", np.array([PROMPT.encode()], object), "BYTES", kind),
        as_input("stream", np.array([stream]), "BOOL", kind),
        as_input("sampling_parameters", np.array([json.dumps(settings).encode()], object), "BYTES", kind),
    ]


def text(result: Any) -> str:
    output = result.as_numpy("text_output")
    return "" if output is None else output[0].decode()


def parameter(result: Any, name: str) -> Any:
    value = result.get_response().parameters[name]
    return getattr(value, value.WhichOneof("parameter_choice"))


class Streamed:
    """A stream of the client with threads: what its callback is told."""

    def __init__(self, address: str, **options: Any) -> None:
        self.client = triton.InferenceServerClient(address)
        self.told: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self.client.start_stream(lambda result, error: self.told.put((result, error)), **options)

    def __enter__(self) -> "Streamed":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.stop_stream(cancel_requests=True)

    def infer(self, model: str, inputs: list[Any], **options: Any) -> None:
        self.client.async_stream_infer(model, inputs, **options)

    def next(self) -> Any:
        result, error = self.told.get(timeout=30)
        if error is not None:
            raise error
        return result

    def whole(self) -> list[Any]:
        """The responses to one request, to the one that says that it is the last."""
        results = [self.next()]
        while not parameter(results[-1], "triton_final_response"):
            results.append(self.next())
        return results

    def failure(self) -> str:
        try:
            self.next()
        except InferenceServerException as error:
            return str(error.message())
        raise AssertionError("the request was accepted")


def sync_calls(address: str, images: Any) -> dict[str, Any]:
    with Streamed(address) as stream:
        for number in range(3):
            stream.infer("digits", [as_input("x", images[number : number + 1], "FP32")], request_id=str(number))
        labels = [stream.next() for _ in range(3)]
        whole = stream.client.infer("pycode", text_inputs(GREEDY, stream=False), request_id="7")
        stream.infer("pycode", text_inputs(GREEDY, stream=True), request_id="7", enable_empty_final_response=True)
        pieces = stream.whole()
        stream.infer("nothing", text_inputs(GREEDY, stream=True))
        failures = [stream.failure()]
        stream.infer("digits", [as_input("x", images[:1].astype(float), "FP64")])
        failures.append(stream.failure())
        stream.infer("pycode", text_inputs({"temprature": 1}, stream=True))
        failures.append(stream.failure())
        stream.infer("digits", [as_input("x", images[:1], "FP32")], request_id="last")
        last = stream.next()
        stream.client.stop_stream()
    return {
        "labels": [int(result.as_numpy("label")[0]) for result in labels],
        "ids": [result.get_response().id for result in (*labels, *pieces[:1], whole, last)],
        "finals": [parameter(result, "triton_final_response") for result in labels],
        "whole": text(whole),
        "streamed": PROMPT + "".join(map(text, pieces)),
        "pieces": len(pieces),
        "failures": failures,
    }


def sync_cancels(address: str) -> dict[str, Any]:
    """Of a stream in its midst, and of a single call."""
    with Streamed(address) as stream:
        stream.infer("pycode", text_inputs(LONG, stream=True), parameters={"millrace_job_id": "cancelled-stream"})
        stream.next()
    statuses: queue.Queue[Any] = queue.Queue()
    inputs = text_inputs(LONG, stream=False)
    call = stream.client.async_infer("pycode", inputs, lambda result, error: statuses.put(error))
    call.cancel()
    return {"cancelled": str(statuses.get(timeout=30).status())}


def resume(address: str, other: str) -> dict[str, Any]:
    """A named text, left in its midst and gone on with at another frontend."""
    named = {"millrace_job_id": "resumed", "millrace_resume_window_ms": 60_000}
    with Streamed(address) as first:
        first.infer("pycode", text_inputs(LONG, stream=True), parameters=named)
        seen = [first.next() for _ in range(5)]
    behind = {
        "millrace_after_offset": parameter(seen[-1], "millrace_offset"),
        "millrace_after_history": str(parameter(seen[-1], "millrace_history")),
    }
    with Streamed(other) as second:
        second.infer("pycode", text_inputs(LONG, stream=True), parameters=named | behind)
        seen += second.whole()
        second.infer("pycode", text_inputs(LONG, stream=True), parameters=named)
        again = second.whole()
    return {
        "resumed": "".join(map(text, seen)),
        "undisturbed": "".join(map(text, again)),
        "offsets": [parameter(result, "millrace_offset") for result in seen],
    }


async def async_calls(address: str) -> dict[str, Any]:
    async def requests(*settings: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        for number, one in enumerate(settings):
            inputs = text_inputs(one, stream=True, kind=triton_aio.InferInput)
            yield {"model_name": "pycode", "inputs": inputs, "request_id": str(number)}

    async with triton_aio.InferenceServerClient(address) as client:
        pieces: dict[str, str] = {"0": PROMPT, "1": PROMPT}
        errors = []
        async for result, error in client.stream_infer(requests(GREEDY, GREEDY, {"top_p": 2})):
            if error is not None:
                errors.append(str(error.message()))
            else:
                pieces[result.get_response().id] += text(result)
        endless: Any = client.stream_infer(requests(LONG))
        await anext(endless)
        endless.cancel()
        cancelled = False
        try:
            async for _ in endless:
                pass
        except (asyncio.CancelledError, InferenceServerException):
            cancelled = True
        status = ""
        refused: Any = client.stream_infer(requests({"top_p": 2}), headers={"triton_grpc_error": "true"})
        try:
            async for _ in refused:
                pass
        except grpc.aio.AioRpcError as error:
            status = str(error.code())
        return {
            "async": list(pieces.values()),
            "async_errors": errors,
            "async_cancelled": cancelled,
            "async_status": status,
        }


def main() -> None:
    address, other, digits = sys.argv[1:]
    images = np.load(digits)["x"].astype(np.float32)
    seen = sync_calls(address, images) | sync_cancels(address) | resume(address, other)
    print(json.dumps(seen | asyncio.run(async_calls(address))))


if __name__ == "__main__":
    main()
