"""Start-time fair queueing between the tenants of one priority class, in plain Python.

A tenant's virtual time is what it was charged, divided by its weight. The waiting tenant with the smallest goes next,
and the clock is the virtual time of the one served last; who comes back starts at the clock, or where it had got to.
"""

from dataclasses import dataclass, field


@dataclass(slots=True)
class FairShare:
    clock: float = 0.0
    waiting: dict[str, float] = field(default_factory=dict)
    resting: dict[str, float] = field(default_factory=dict)

    def order(self) -> list[str]:
        return sorted(self.waiting, key=lambda tenant: (self.waiting[tenant], tenant))

    def arrive(self, tenant: str) -> None:
        if tenant not in self.waiting:
            self.waiting[tenant] = max(self.resting.pop(tenant, 0.0), self.clock)

    def leave(self, tenant: str) -> None:
        self._rest(tenant, self.waiting.pop(tenant))

    def serve(self, tenant: str) -> None:
        """The tenant's turn has come: the clock moves to its virtual time."""
        self.clock = max(self.clock, self.waiting[tenant])
        self.resting = {other: time for other, time in self.resting.items() if time > self.clock}

    def charge(self, tenant: str, amount: float) -> None:
        if tenant in self.waiting:
            self.waiting[tenant] += amount
        elif amount:
            self._rest(tenant, max(self.resting.get(tenant, 0.0), self.clock) + amount)

    def _rest(self, tenant: str, time: float) -> None:
        self.resting.pop(tenant, None)
        if time > self.clock:
            self.resting[tenant] = time
