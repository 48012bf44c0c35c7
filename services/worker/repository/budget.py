"""The memory that a worker's models may have together."""

from collections import defaultdict

SETTING = "MILLRACE_MEMORY_BYTES"
MOST_NAMED = 5
"""Models that an error names."""


class Budget:
    """What is held, by model. `total_bytes` 0: there is no limit. A model may hold twice, while its next version of
    the same name is loaded beside it."""

    def __init__(self, total_bytes: int) -> None:
        self._total = total_bytes
        self._held: defaultdict[str, list[int]] = defaultdict(list)

    @property
    def held_bytes(self) -> int:
        return sum(map(sum, self._held.values()))

    def reserve(self, name: str, needed: int) -> None:
        """Raises ValueError, and holds nothing, where `needed` bytes are more than is left."""
        left = self._total - self.held_bytes
        if self._total and needed > left:
            raise ValueError(
                f"{name} needs about {told(needed)}, and {told(left)} of the {told(self._total)} in {SETTING} "
                f"are left{self._holders()}: unload something or raise it"
            )
        self._held[name].append(needed)

    def release(self, name: str, *, newest: bool = False) -> None:
        """Lets go of what was reserved first under this name, or, where the new one came to nothing, last. Raises
        IndexError where there is nothing."""
        self._held[name].pop(-1 if newest else 0)

    def _holders(self) -> str:
        """The largest, in brackets."""
        held = sorted(((sum(sizes), name) for name, sizes in self._held.items() if sizes), reverse=True)
        named = [f"{name} has {told(size)}" for size, name in held[:MOST_NAMED]]
        return f" ({', '.join(named + ['…'] * (len(held) > MOST_NAMED))})" if held else ""


def told(size: int) -> str:
    """Bytes as people say them."""
    for unit, least in (("GB", 10**9), ("MB", 10**6), ("KB", 10**3)):
        if size >= least:
            return f"{size / least:.{0 if size >= 10 * least else 1}f} {unit}".replace(".0 ", " ")
    return f"{size} bytes"
