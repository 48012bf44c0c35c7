"""What a frontend says of itself at /metrics."""

import asyncio
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

from tests.processes import Service

STREAMS, TASKS = "millrace_frontend_streams", "millrace_frontend_tasks"
MEMORY, DESCRIPTORS = "process_resident_memory_bytes", "process_open_fds"


async def scrape(frontend: Service) -> dict[str, float]:
    """Its series without labels, by name."""
    text = await asyncio.to_thread(_get, f"http://{frontend.ready['http']}/metrics")
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {sample.name: sample.value for sample in samples if not sample.labels}


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5.0) as answer:
        text: str = answer.read().decode()
    return text
