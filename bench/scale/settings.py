"""How much of everything is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The full run; `quick` gives a short one."""

    cores: int = 2
    """For everything together: client, services and Valkey."""
    channels: int = 4
    """gRPC connections to each frontend."""
    warm_s: float = 1.0
    """What runs before anything counts."""
    frontends: tuple[int, ...] = (1, 2, 4)
    workers: tuple[int, ...] = (1, 2, 4, 8)
    growth_s: float = 4.0
    """Of each load on each number of frontends and workers."""
    slots: int = 64
    """Streams that a worker runs at once: with `step_ms` the 2,000 tokens a second of a GPU that is well used."""
    step_ms: float = 32.0
    stream_tokens: int = 96
    short_callers: int = 128
    short_step_ms: float = 4.0
    concurrencies: tuple[int, ...] = (1, 4, 16, 64, 256)
    """Streams, and callers, of one frontend and one worker."""
    idle_s: float = 3.0
    costs_s: float = 4.0
    sample_s: float = 2.0
    """How long scripts are timed one by one."""
    emit_jobs: tuple[int, ...] = (1, 16, 64, 256)
    emit_steps: tuple[int, ...] = (1, 4, 16)
    """Merged into one result, where an emit has `slots` jobs."""
    wall_s: float = 3.0
    crowds: tuple[int, ...] = (1, 10, 100, 1_000)
    """Workers that announce themselves."""
    payloads: tuple[int, ...] = (100, 1 << 10, 16 << 10)
    """Bytes of a waiting job's prompt."""
    payload_jobs: int = 2_000
    short_queue: int = 1_000
    waiting_jobs: int = 100_000
    submit_rate: float = 1_500.0
    """What is surely accepted in a second: the deadline of all that wait is set by it."""
    linger_s: float = 40.0
    """From the last submission to that deadline, at least."""
    backlog_s: float = 8.0
    """How long a worker works behind the full queue."""
    cancels: int = 2_000
    open_streams: tuple[int, ...] = (1_000, 2_500, 5_000)
    connections: int = 1_000
    """Of streams that share none."""
    held_workers: int = 8
    held_step_ms: float = 2_000.0
    held_s: float = 20.0


def quick(*, cores: int = 2) -> Settings:
    """Enough to see that everything works."""
    return Settings(
        cores=cores,
        warm_s=0.5,
        frontends=(1, 2),
        workers=(1, 2),
        growth_s=1.5,
        concurrencies=(1, 16, 64),
        idle_s=1.0,
        costs_s=1.5,
        sample_s=1.0,
        emit_jobs=(1, 64),
        emit_steps=(1, 4),
        wall_s=1.0,
        crowds=(1, 100),
        payloads=(100, 16 << 10),
        payload_jobs=300,
        short_queue=500,
        waiting_jobs=3_000,
        submit_rate=500.0,
        linger_s=8.0,
        backlog_s=2.0,
        cancels=100,
        open_streams=(100, 300),
        connections=50,
        held_workers=2,
        held_s=4.0,
    )
