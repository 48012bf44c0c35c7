"""The same requests through the whole service."""

import asyncio
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio

from bench.bare import request
from millrace.cli.up import Fleet, Plan
from millrace.v1.generation_pb2_grpc import TextGenerationServiceStub

if TYPE_CHECKING:
    from millrace.v1.generation_pb2_grpc import TextGenerationServiceAsyncStub


async def run_service(
    models: Path, model: str, streams: int, max_tokens: int, threads: int
) -> tuple[float, list[float]]:
    """Tokens per second of all streams together, and each stream's seconds to its first token."""
    os.environ["MILLRACE_THREADS"] = str(threads)
    plan = Plan(
        redis_url=None,
        frontends=1,
        workers=1,
        models=models,
        device="cpu",
        grpc_port=0,
        http_port=0,
        log_level="warning",
    )
    with tempfile.TemporaryDirectory(prefix="millrace-bench-") as folder:
        fleet = Fleet(plan, folder)
        tasks = [asyncio.create_task(child.run()) for child in fleet.children]
        for child in fleet.children:
            await child.ready.wait()
        async with grpc.aio.insecure_channel(fleet.grpc[0]) as channel:
            stub: TextGenerationServiceAsyncStub = TextGenerationServiceStub(channel)
            await _stream(stub, model, 0, 8)
            began = time.perf_counter()
            firsts = await asyncio.gather(*(_stream(stub, model, index, max_tokens) for index in range(streams)))
            seconds = time.perf_counter() - began
        await fleet.stop()
        await asyncio.gather(*tasks, return_exceptions=True)
    return streams * max_tokens / seconds, list(firsts)


async def _stream(stub: "TextGenerationServiceAsyncStub", model: str, seed: int, max_tokens: int) -> float:
    began, first = time.perf_counter(), 0.0
    call = stub.Generate(request(model, seed, max_tokens))
    try:
        async for _ in call:
            first = first or time.perf_counter() - began
    finally:
        call.cancel()
    return first
