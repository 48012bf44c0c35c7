"""Who takes part: Millrace, the bare loop, and others in environments of their own."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import blobs
from bench.children import measure_completions, measure_streams
from bench.completions import Completions
from bench.fleet import serving
from bench.generation import models, workloads
from bench.generation.models import Weights
from bench.generation.settings import Settings
from bench.generation.stage import FAILURES, Contestant, Measure
from bench.generation.workloads import Requests
from bench.peers import vllm
from bench.peers.specs import Batches, Calls
from bench.streams import Streams

CLOSED, CHAT, LONG = "closed", "chat", "long"
SERVED: dict[str, dict[str, Any]] = {
    CLOSED: {"slots": 32, "context_length": 256},
    CHAT: {"slots": 32, "context_length": 512},
    LONG: {"slots": 32, "context_length": 1024},
}
"""model.yaml for each workload."""
STORED, FP32 = "stored", "fp32"
GENAI, VLLM = "genai", "vllm"
PEERS = (GENAI, VLLM)
SERVICE, BARE_NAME, GENAI_NAME, VLLM_NAME = "Millrace", "bare ONNX Runtime", "onnxruntime-genai", "vLLM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """Where things are."""

    folder: Path
    """Of this run; it goes at the end."""
    environments: Path
    """ENVIRONMENTS/PEER is a peer's virtual environment."""

    @property
    def checkpoint(self) -> Path:
        """The same in all runs, since kernels that were compiled for a model are found by its path."""
        return self.environments / "checkpoint"

    def served(self, precision: str) -> Path:
        """A model repository with weights of that precision."""
        return self.folder / "served" / precision

    def python(self, peer: str) -> Path:
        """Raises ValueError where the peer is not installed."""
        python = self.environments / peer / "bin" / "python"
        if not python.exists():
            raise ValueError(f"not installed: there is no {python}")
        return python


def all_of(
    settings: Settings,
    weights: Weights,
    places: Places,
    *,
    precisions: Iterable[str],
    peers: Iterable[str],
    changes: dict[str, Any],
    lasting: AsyncExitStack,
) -> list[Contestant]:
    """`changes`: to model.yaml. Servers of others start when they are first asked for and stay until `lasting` ends."""
    found = [_bare(settings, weights)]
    found += [_service(settings, weights, places, precision, changes) for precision in precisions]
    if GENAI in peers:
        found.append(_genai(settings, weights, places))
    if VLLM in peers:
        checkpoint = models.write_checkpoint(weights, places.checkpoint)
        found += [_vllm(checkpoint, places, precision, lasting) for precision in vllm.PRECISIONS]
    return found


def _bare(settings: Settings, weights: Weights) -> Contestant:
    @asynccontextmanager
    async def open_bare(workload: str) -> AsyncIterator[Measure]:
        async def measure(requests: Requests) -> Completions:
            bare = weights.bare(requests, slots=settings.callers, threads=settings.cores)
            return await measure_completions("bench.bare_generation", bare)

        yield measure

    return Contestant(BARE_NAME, FP32, open_bare, is_server=False)


def _service(
    settings: Settings, weights: Weights, places: Places, precision: str, changes: dict[str, Any]
) -> Contestant:
    """The client, a frontend, a worker and Valkey."""
    stored = {} if precision == STORED else {"weights": precision}

    @asynccontextmanager
    async def open_service(workload: str) -> AsyncIterator[Measure]:
        folder = places.served(precision)
        models.write_served(weights, folder, SERVED[workload] | stored | changes)
        requests_file = places.folder / f"{precision}.requests"
        async with serving(folder, settings.cores) as fleet:

            async def measure(requests: Requests) -> Completions:
                blobs.write(requests_file, workloads.messages(requests, models.NAME))
                spec = Streams(
                    address=fleet.address,
                    requests=str(requests_file),
                    callers=requests.callers,
                    due_s=requests.due_s,
                )
                return await measure_streams(spec)

            yield measure

    return Contestant(SERVICE, FP32 if precision == STORED else precision, open_service)


def _genai(settings: Settings, weights: Weights, places: Places) -> Contestant:
    """Its Generator, in static batches, which on a CPU gives more than its Engine."""

    @asynccontextmanager
    async def open_genai(workload: str) -> AsyncIterator[Measure]:
        python = places.python(GENAI)
        folder = models.write_genai(weights, places.folder / GENAI, settings.cores)

        async def measure(requests: Requests) -> Completions:
            spec = Batches(
                folder=str(folder),
                rows=settings.callers,
                prompts=[list(prompt) for prompt in requests.prompts],
                tokens=list(requests.tokens),
            )
            return await measure_completions("bench.peers.genai", spec, python)

        yield measure

    return Contestant(GENAI_NAME, FP32, open_genai, is_server=False)


def _vllm(checkpoint: Path, places: Places, precision: str, lasting: AsyncExitStack) -> Contestant:
    """Its HTTP server, whose start is tried once."""
    started: list[str | Exception] = []

    async def start() -> str:
        server = vllm.Server(
            python=places.python(VLLM),
            model=checkpoint,
            precision=precision,
            context=models.CONTEXT,
            folder=places.folder / f"vllm-{precision}",
            cache=places.environments / "cache",
        )
        return await lasting.enter_async_context(vllm.serving(server))

    @asynccontextmanager
    async def open_vllm(workload: str) -> AsyncIterator[Measure]:
        if not started:
            try:
                started.append(await start())
            except FAILURES as error:
                started.append(error)
        address = started[0]
        if isinstance(address, Exception):
            raise address

        async def measure(requests: Requests) -> Completions:
            spec = Calls(
                address=address,
                model=vllm.MODEL,
                prompts=requests.prompts,
                tokens=requests.tokens,
                callers=requests.callers,
                due_s=requests.due_s,
                warm=requests.warm,
            )
            return await measure_completions("bench.peers.openai", spec)

        yield measure

    return Contestant(VLLM_NAME, precision, open_vllm)
