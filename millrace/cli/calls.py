"""The commands that call a running Millrace."""

import asyncio
import sys
import time
from collections.abc import Coroutine
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from millrace.cli.service import Service
from millrace.client.request import Prompt
from millrace.errors import InvalidRequest, MillraceError, Unavailable
from millrace.v1.fleet_pb2 import Model
from millrace.v1.job_pb2 import Timing

INTERRUPTED = 130
HINTS = {
    "CALLER_CERTIFICATE": "--tls-cert and --tls-key show one.",
    "CERTIFICATE_NAME": "--tls-name says under which name they are known, if it is not their address.",
    "CERTIFICATE_UNTRUSTED": "--tls-ca names a file with the authorities that are trusted.",
    "CREDENTIALS_INVALID": "MILLRACE_API_KEY, or --api-key, must be a key or a token that this service knows.",
    "CREDENTIALS_MISSING": "MILLRACE_API_KEY, or --api-key, says who calls.",
    "MODEL_UNKNOWN": "`millrace models` lists what is served there.",
    "MODEL_LOAD_FAILED": "What was served before is served still: `millrace models --all` shows it.",
    "NO_WORKER": "`millrace models` lists what is served; a worker that starts does what was commanded before.",
    "STILL_AT_IT": "The workers go on with it: `millrace models --all` shows how far they are.",
    "TENANT_MISMATCH": "The key says whose call it is: leave --tenant and MILLRACE_TENANT unset.",
    "TLS_SPOKEN": "--tls calls by TLS, --tls-ca too, with authorities of your own.",
    "TLS_UNSPOKEN": "Is --address the gRPC port? Without --tls and MILLRACE_CLIENT_TLS… it is called in plaintext.",
    "TASK_UNIMPLEMENTED": "`millrace models` lists each model's task: generate writes text, infer takes tensors.",
}
"""What to do about an error, by its reason."""
errors = Console(stderr=True, highlight=False)


def run(call: Coroutine[Any, Any, None]) -> int:
    """Runs a command; answers its exit status, and prints what went wrong and what to do about it."""
    try:
        asyncio.run(call)
    except InvalidRequest as error:
        for violation in error.violations:
            errors.print(f"[red]{escape(violation.field or 'request')}[/red]: {escape(violation.description)}")
        for hint in getattr(error, "__notes__", ()):
            errors.print(hint, markup=False)
        return 2
    except MillraceError as error:
        errors.print(f"[red]{error.code.name}[/red] {error.reason}: {escape(error.message)}")
        if error.reason in HINTS:
            errors.print(HINTS[error.reason])
        elif isinstance(error, Unavailable):
            errors.print("Is Millrace running there? `millrace up` starts it; --address says where it is.")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


async def generate(service: Service, model: str, prompt: Prompt, options: dict[str, Any], *, stats: bool) -> None:
    """Streams the first completion to standard output; others follow it, each behind a line with its number."""
    await models_served(service)
    began, first, tokens = time.monotonic(), 0.0, 0
    others: dict[int, str] = {}
    timing = Timing()
    async with service.client() as client:
        async for delta in client.generate(model, prompt, **options):
            first = first or time.monotonic()
            timing = delta.message.timing
            for part in delta.parts:
                tokens += len(part.token_ids)
                if part.index:
                    others[part.index] = others.get(part.index, "") + part.text
            sys.stdout.write(delta.text)
            sys.stdout.flush()
    sys.stdout.write("\n")
    for index, text in sorted(others.items()):
        sys.stdout.write(f"--- {index + 1}\n{text}\n")
    if stats and first:
        rate = (tokens - 1) / max(time.monotonic() - first, 1e-9)
        errors.print(
            f"{tokens} tokens, first after {1000 * (first - began):.0f} ms, then {rate:.1f} tokens/s", soft_wrap=True
        )
        errors.print(describe_timing(timing), soft_wrap=True)


def describe_timing(timing: Timing) -> str:
    """A job's flight record, in a line."""
    queued, batching, prefill, decode = (
        part.ToMicroseconds() / 1000
        for part in (timing.queued, timing.batching, timing.first_output, timing.remaining_output)
    )
    spent = f"queued {queued:.1f} ms, batching {batching:.1f} ms, prefill {prefill:.1f} ms, decode {decode:.1f} ms"
    attempts = f"attempts {timing.attempts}, preemptions {timing.preemptions}"
    return f"{spent}; {attempts}, worker {timing.worker_id or 'unknown'}"


async def models(service: Service) -> None:
    """Prints a table of what is served."""
    served = await models_served(service)
    table = Table("model", "version", "task", "workers", "waiting", "running", "wait", "context", box=SIMPLE)
    for model in served:
        wait = model.estimated_wait.ToMilliseconds() / 1000 if model.HasField("estimated_wait") else None
        table.add_row(
            model.name,
            ", ".join(model.versions),
            model.task,
            str(model.ready_workers),
            str(model.waiting_jobs),
            str(model.running_jobs),
            "unknown" if wait is None else f"{wait:.1f} s",
            str(model.context_length or "–"),
        )
    Console().print(table)


async def models_served(service: Service) -> list[Model]:
    async with service.knocking() as client:
        return await client.models()
