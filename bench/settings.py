"""How long and how often everything is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The full run; `quick` gives a short one."""

    rounds: int = 3
    cores: int = 2
    """For everything together: client, services and Valkey, or the bare runtime."""
    channels: int = 4
    """gRPC connections of the client."""
    warm_s: float = 1.0
    """What runs before anything counts."""
    bare_s: float = 1.0
    """Of each size of a run of the bare runtime."""
    bare_rows: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    saturate_s: float = 8.0
    """Of each closed loop: long enough for batches to count evenly where rows are slow."""
    callers: tuple[int, ...] = (16, 32, 64)
    """Of a closed loop; the best of them counts."""
    load_s: float = 4.0
    """Of each size of payload, and of the sequential calls."""
    loads: tuple[float, ...] = (0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
    """Of an open loop, in shares of the saturation."""
    open_s: float = 10.0
    generation_requests: int = 64
    generation_slots: int = 32
    relay_streams: int = 256
    relay_tokens: int = 400
    payload_bytes: tuple[int, ...] = (1 << 10, 16 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20)
    payload_callers: int = 4
    seed: int = 0


def quick(*, rounds: int = 1, cores: int = 2) -> Settings:
    """Enough to see that everything works, and roughly how fast."""
    return Settings(
        rounds=rounds,
        cores=cores,
        warm_s=0.5,
        bare_s=0.5,
        bare_rows=(1, 4, 8, 16),
        saturate_s=3.0,
        callers=(32,),
        load_s=2.0,
        loads=(0.4, 0.7, 1.0),
        open_s=4.0,
        generation_requests=24,
        generation_slots=16,
        relay_streams=128,
        relay_tokens=150,
        payload_bytes=(1 << 10, 1 << 20, 16 << 20),
    )
