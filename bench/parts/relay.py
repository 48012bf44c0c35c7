"""Relay: how many tokens a second a frontend passes on, from an engine that only sleeps."""

from typing import Any

from bench import blobs
from bench.children import measure_streams
from bench.fleet import serving
from bench.report import Figure, Part
from bench.run import Run, median
from bench.streams import Streams
from millrace.v1.generation_pb2 import GenerateRequest, Stopping
from tests.stub_models import write_stub

NAME, MODEL = "relay", "stub"
AIM = 15_000.0
STEP_MS = 10.0


async def run(run: Run) -> Part:
    settings, requests = run.settings, run.folder / "relayed"
    models = run.repository(MODEL)
    write_stub(models, MODEL, slots=settings.relay_streams, step_ms=STEP_MS)
    body = GenerateRequest(model=MODEL, text="to relay", stopping=Stopping(max_tokens=settings.relay_tokens))
    blobs.write(requests, [body.SerializeToString()] * (1 + settings.relay_streams))
    rounds = list[dict[str, float]]()
    async with serving(models, settings.cores) as fleet:
        for number in range(settings.rounds):
            before = fleet.cpu_s()
            measured = await measure_streams(
                Streams(
                    address=fleet.address,
                    requests=str(requests),
                    callers=settings.relay_streams,
                    channels=settings.channels,
                )
            )
            if measured.tokens != settings.relay_streams * settings.relay_tokens:
                raise ValueError(f"{measured.tokens} tokens came, and not {settings.relay_tokens} for each stream")
            used = fleet.cpu_since(before) | {"client": measured.cpu_s}
            entry = {
                "tokens_per_s": measured.rate,
                "messages_per_s": measured.messages / measured.seconds,
                "tokens_per_frontend_core_s": measured.tokens / used["frontend"],
                "messages_per_frontend_core_s": measured.messages / used["frontend"],
                **{f"{name}_cores": seconds / measured.seconds for name, seconds in used.items()},
            }
            run.say(NAME, f"round {number + 1}", f"{entry['tokens_per_frontend_core_s']:,.0f} tokens a core second")
            rounds.append(entry)
    return Part(
        name=NAME,
        title=f"Relay: {settings.relay_streams} streams of {settings.relay_tokens} tokens from a stub engine",
        figures=_figures(rounds),
        notes=(_note(rounds),),
        data={"rounds": rounds},
    )


def _figures(rounds: list[dict[str, float]]) -> tuple[Figure, ...]:
    middle: dict[str, Any] = {name: median([entry[name] for entry in rounds]) for name in rounds[0]}
    return (
        Figure(
            name="tokens a second of a frontend's core",
            value=middle["tokens_per_frontend_core_s"],
            unit="tokens/s",
            aim=AIM,
        ),
        Figure(name="messages a second of it", value=middle["messages_per_frontend_core_s"], unit="messages/s"),
        Figure(name="tokens a second", value=middle["tokens_per_s"], unit="tokens/s"),
        Figure(name="messages a second", value=middle["messages_per_s"], unit="messages/s"),
    )


def _note(rounds: list[dict[str, float]]) -> str:
    last = rounds[-1]
    cores = ", ".join(f"{name} {last[f'{name}_cores']:.2f}" for name in ("frontend", "worker", "valkey", "client"))
    merged = last["tokens_per_s"] / last["messages_per_s"]
    return f"steps of {STEP_MS:.0f} ms; {merged:.1f} tokens a message; cores: {cores}"
