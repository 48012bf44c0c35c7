from collections.abc import Sequence

from tests.survival.fleet import Fleet, Transcript


async def differences(running: Fleet, model: str, seen: Sequence[Transcript], *, stub: bool = False) -> list[str]:
    return [t.job_id for t in seen if [m.offset for m in t.messages] != list(range(1, len(t.messages) + 1))]
