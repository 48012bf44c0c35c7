"""Callers with stubs generated from protos/: Python's, with a loop of their own, and Node's, with its example's."""

import asyncio
import base64
import itertools
import json
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
import numpy as np

from millrace.client.status import Refusal
from millrace.errors import Code
from millrace.v1.generation_pb2 import GenerateRequest, GenerateResponse, Stopping
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub
from millrace.v1.job_pb2 import JobOptions
from tests.chaos.load import MODEL, Follow
from tests.chaos.unary import DIGITS, ROOT, SERVICE_CONFIG, Answers
from tests.survival.fleet import Transcript

if TYPE_CHECKING:
    from millrace.v1.generation_pb2_grpc import TextGenerationServiceAsyncStub

RESUME_WINDOW_S = 30
PATIENCE = 12
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
NODE = ROOT / "build" / "clients" / "node"
IMAGES = 50
LINE_BYTES = 1 << 20


@asynccontextmanager
async def python_stubs(addresses: Sequence[str], tokens: int) -> AsyncIterator[Follow]:
    """Generations by a channel for each frontend."""
    async with AsyncExitStack() as stack:
        channels = [await stack.enter_async_context(grpc.aio.insecure_channel(address)) for address in addresses]
        stubs: list[TextGenerationServiceAsyncStub] = [TextGenerationServiceStub(channel) for channel in channels]

        async def follow(transcript: Transcript) -> None:
            job = JobOptions(job_id=transcript.job_id)
            job.resume_window.FromSeconds(RESUME_WINDOW_S)
            stopping = Stopping(max_tokens=tokens)
            request = GenerateRequest(model=MODEL, text=transcript.prompt, stopping=stopping, job=job)
            try:
                async for message in _resumed(stubs, request):
                    transcript.note(message)
            except grpc.aio.AioRpcError as failure:
                raise Refusal(failure).error from None
            transcript.code = Code.OK

        yield follow


async def _resumed(
    stubs: Sequence["TextGenerationServiceAsyncStub"], request: GenerateRequest
) -> AsyncIterator[GenerateResponse]:
    """The loop of examples/clients. `request.job` has the place."""
    failures = 0
    for stub in itertools.cycle(stubs):
        call = stub.Generate(request)
        try:
            async for message in call:
                request.job.after_offset, request.job.after_history = message.offset, message.history
                failures = 0
                yield message
            return
        except grpc.aio.AioRpcError as error:
            failures += 1
            ended = ("millrace-ended", "1") in tuple(error.trailing_metadata() or ())
            if error.code() is not grpc.StatusCode.UNAVAILABLE or ended or failures > PATIENCE:
                raise
        finally:
            call.cancel()
        await asyncio.sleep(min(FIRST_PAUSE_S * 2**failures, LONGEST_PAUSE_S))


@dataclass(kw_only=True)
class NodeLoad:
    """What Node's callers have seen so far."""

    seen: dict[str, Transcript] = field(default_factory=dict)
    answers: Answers = field(default_factory=Answers)
    missing: str = ""
    """Why there are no such callers on this machine."""

    def note(self, line: bytes) -> None:
        told = json.loads(line)
        match told["kind"]:
            case "asked":
                self.seen[told["job"]] = Transcript(job_id=told["job"], prompt="go on")
            case "message":
                self.seen[told["job"]].note(GenerateResponse.FromString(base64.b64decode(told["message"])))
            case "ended":
                self.seen[told["job"]].code = Code(told["code"])
                self.seen[told["job"]].reason = told["reason"]
            case "answer":
                self.answers.latencies.append(told["ms"] / 1000)
                self.answers.right += 1
            case "failure":
                self.answers.failures.append(told["failure"])

    def note_exit(self, code: int) -> None:
        if code != 0:
            self.answers.failures.append(f"the process has ended with {code}")


@asynccontextmanager
async def node_load(
    targets: Sequence[str], addresses: Sequence[str], *, last_s: float, **load: float
) -> AsyncIterator[NodeLoad]:
    """Streams to the addresses, and unary calls to each target in turn, until the block ends; then waits `last_s` for
    the last. `load`: streams, tokens of each, and rate, operations a second."""
    noted = NodeLoad()
    if missing := [tool for tool in ("node", "npm") if not shutil.which(tool)]:
        noted.missing = f"no {' and no '.join(missing)} on this machine"
        yield noted
        return
    await _build()
    told = json.dumps({"targets": targets, "addresses": addresses, "config": SERVICE_CONFIG.read_text(), **load})
    child = await asyncio.create_subprocess_exec("node", NODE / "load.js", stdin=PIPE, stdout=PIPE, limit=LINE_BYTES)
    assert child.stdin is not None
    child.stdin.write(f"{told}\n{json.dumps(_images())}\n".encode())
    listening = asyncio.create_task(_listen(child, noted))
    try:
        yield noted
        child.stdin.close()
        try:
            async with asyncio.timeout(last_s):
                await listening
                noted.note_exit(await child.wait())
        except TimeoutError:
            noted.answers.failures.append(f"calls have not ended within {last_s:g} s")
    finally:
        listening.cancel()
        if child.returncode is None:
            child.kill()
            await child.wait()


async def _listen(child: Process, noted: NodeLoad) -> None:
    assert child.stdout is not None
    async for line in child.stdout:
        noted.note(line)


async def _build() -> None:
    make = await asyncio.create_subprocess_exec("make", "-s", "-C", ROOT / "examples" / "clients", "node")
    assert await make.wait() == 0
    await asyncio.to_thread(shutil.copy, Path(__file__).with_name("load.js"), NODE)


def _images() -> list[tuple[str, int]]:
    """Base64 of an image, and its label."""
    with np.load(DIGITS / "held_out.npz") as held_out:
        images, labels = held_out["x"][:IMAGES].astype("<f4"), held_out["label"][:IMAGES].tolist()
    return [(base64.b64encode(image.tobytes()).decode(), label) for image, label in zip(images, labels, strict=True)]
