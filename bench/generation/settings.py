"""How long and how often generation is measured."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The full run; `quick` gives a short one."""

    rounds: int = 3
    """Of the closed loop and of the chat; of the long prompts, one in three."""
    cores: int = 2
    """For everything together: client, services and Valkey, or a server, or a library."""
    callers: int = 32
    requests: int = 64
    prompt_tokens: int = 128
    output_tokens: tuple[int, int] = (16, 112)
    """Of the closed loop and of the chat."""
    chat_requests: int = 64
    chat_prefix_tokens: int = 256
    """What all prompts of a chat begin with."""
    chat_own_tokens: tuple[int, int] = (32, 96)
    chat_load: float = 0.7
    """Arrivals, as a share of what the service answers in a closed loop with the stored weights."""
    chat_rate: float = 0.0
    """Arrivals a second; 0: by `chat_load`."""
    running_streams: int = 16
    """That decode while long prompts arrive."""
    running_tokens: int = 448
    """Enough to outlast the long prompts."""
    long_prompts: int = 6
    long_prompt_tokens: int = 900
    long_after_s: float = 4.0
    """When the first long prompt comes: by then all streams run."""
    long_every_s: float = 1.0
    long_output_tokens: int = 16
    step_rows: int = 32
    steps: int = 80
    """In which the engine's own share is measured."""
    seed: int = 0

    @property
    def long_rounds(self) -> int:
        return max(self.rounds // 3, 1)


def quick(*, cores: int = 2) -> Settings:
    """Enough to see that everything works, and roughly how fast."""
    return Settings(
        rounds=1,
        cores=cores,
        callers=16,
        requests=24,
        chat_requests=16,
        running_streams=8,
        running_tokens=320,
        long_prompts=3,
        steps=40,
    )
