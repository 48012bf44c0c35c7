"""Writes the tables of docs/metrics.md, from what a frontend and a worker say at /metrics (`make docs`).

1  a Valkey, a worker with the repository's models, a frontend
2  a generation, a run on tensors, and a call that is refused, so that series have their labels
3  each process's families: name, type, labels, meaning
"""

import asyncio
import re
import urllib.request
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import numpy as np
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from millrace import AsyncClient, MillraceError
from services.frontend.fleet_metrics import ALIASES
from services.worker.aliases import aliases
from tests.eventually import eventually
from tests.processes import Service, Valkey

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "metrics.md"
PREFIXES: dict[str, str | tuple[str, ...]] = {
    "worker": "millrace_worker_",
    "engine": "millrace_engine_",
    "frontend": "millrace_frontend_",
    "fleet": ("millrace_queue_", "millrace_model_"),
    "triton": "nv_inference_",
}
"""By the name between the document's marks: how its families begin."""
SUFFIX = {"counter": "_total"}
Families = Mapping[str, Metric]
WITHIN_S = 20.0


async def served() -> Families:
    """What a frontend and a worker serve once they have done something, by name."""
    loopback = {"MILLRACE_HTTP_ADDRESS": "127.0.0.1:0", "MILLRACE_LOG_LEVEL": "error"}
    async with AsyncExitStack() as stack:
        valkey = await stack.enter_async_context(Valkey())
        environment = loopback | {"MILLRACE_REDIS_URL": valkey.url, "MILLRACE_THREADS": "1"}
        worker = await stack.enter_async_context(Service("services.worker", environment))
        frontend = await stack.enter_async_context(
            Service("services.frontend", environment | {"MILLRACE_GRPC_ADDRESS": "127.0.0.1:0"})
        )
        await use(frontend.ready["grpc"])

        async def families() -> Families | None:
            texts = [await asyncio.to_thread(_get, process.ready["http"]) for process in (frontend, worker)]
            found = {family.name: family for text in texts for family in text_string_to_metric_families(text)}
            return found if found["millrace_model_jobs"].samples else None

        return await eventually(families, WITHIN_S)


async def use(address: str) -> None:
    async with AsyncClient(address) as client:
        async for _ in client.generate("pycode", "def f(", max_tokens=4):
            pass
        await client.infer("digits", {"x": np.zeros((1, 1, 8, 8), np.float32)})
        with suppress(MillraceError):
            await client.infer("unknown", {"x": np.zeros(1, np.float32)})


def _get(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as response:
        text: str = response.read().decode()
        return text


def fill(text: str, families: Families) -> str:
    """The document with its tables made anew. Raises ValueError where a mark is missing."""
    tables = {mark: ours(families, prefix) for mark, prefix in PREFIXES.items()} | {"vllm": theirs()}
    for mark, table in tables.items():
        begin, end = f"<!-- metrics: {mark} -->\n", "<!-- end -->"
        pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{DOCUMENT.name} has no mark for the metrics: {mark}")
        text = pattern.sub(lambda _, filled=f"{begin}{table}\n{end}": filled, text)  # type: ignore[misc]
    return text


def ours(families: Families, prefix: str | tuple[str, ...]) -> str:
    rows = [_row(family) for name, family in sorted(families.items()) if name.startswith(prefix)]
    return _table(("name", "type", "labels", "meaning"), rows)


def _row(family: Metric) -> tuple[str, ...]:
    labels = sorted({label for sample in family.samples for label in sample.labels} - {"le"})
    kind = "counter" if family.name.startswith("nv_") and family.type in ("unknown", "untyped") else family.type
    name = family.name + (SUFFIX.get(family.type, ""))
    return f"`{name}`", kind, ", ".join(labels), family.documentation


def theirs() -> str:
    everywhere = [(alias, "worker") for alias in aliases(lambda _: True)]
    everywhere += [(alias, "frontend") for alias in ALIASES]
    rows = [
        (f"`{alias.name}`", f"`{alias.of}{SUFFIX.get(alias.kind, '')}`", process, alias.difference)
        for alias, process in everywhere
    ]
    return _table(("their name", "ours", "served by", "difference"), rows)


def _table(heads: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    heads = tuple(heads)
    lines = [heads, ("---",) * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell or "–" for cell in line) + " |" for line in lines)


if __name__ == "__main__":
    DOCUMENT.write_text(fill(DOCUMENT.read_text(), asyncio.run(served())))
