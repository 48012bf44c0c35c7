"""A caller: starts its call, leaves, comes back to any frontend, cancels, as its plan says; keeps a transcript."""

import asyncio
from contextlib import suppress

from millrace.errors import AlreadyExists, Code, DataLoss, Exhausted, MillraceError, NotFound, Unavailable
from millrace.queue.types import Ending
from tests.simulation.book import Book
from tests.simulation.call import Call, Plan, Transcript
from tests.simulation.frontend import Frontend
from tests.simulation.promise import Broken
from tests.simulation.world import World

CANCELLED = Ending(code=Code.CANCELLED, reason="CANCELLED", message="the caller cancelled the job")
RETRY_S = (0.05, 0.6)
MOST_CALLS = 40


class Caller:
    """`frontends` are all that ever were; the dead refuse its calls."""

    def __init__(self, world: World, book: Book, name: str, plan: Plan, frontends: list[Frontend]) -> None:
        self.name, self.plan, self.transcript = name, plan, Transcript()
        self.ending: Ending | None = None
        """How its call told that the job ended; None where it does not know."""
        self._world, self._book, self._frontends = world, book, frontends

    async def run(self) -> None:
        await asyncio.sleep(self.plan.start_s)
        if self.plan.cancels_after_s is not None:
            self._world.loop.call_later(self.plan.cancels_after_s, self._cancel)
        leaves_after_s = self.plan.leaves_after_s
        for _ in range(MOST_CALLS):
            how = await self._call(leaves_after_s)
            self._world.note(self.name, "sees", how if isinstance(how, Ending) else _told(how))
            self._world.count(f"caller: {_told(how)}")
            if isinstance(how, Ending):
                self.ending = how
                return
            left, leaves_after_s = leaves_after_s is not None and how == "left", None
            if not self._goes_on(how, left=left):
                return
            await asyncio.sleep(self._world.rng.uniform(*RETRY_S))

    def _goes_on(self, how: MillraceError | str | None, *, left: bool) -> bool:
        if left and not self.plan.returns:
            return False
        retried = how is None or left or isinstance(how, Unavailable | Exhausted)
        return retried and self.plan.is_named

    async def _call(self, leaves_after_s: float | None) -> Ending | MillraceError | str | None:
        """How a call ended: as the job, with an error, by leaving, or with its frontend's death."""
        world = self._world
        frontend = world.rng.choice(self._frontends[-3:])
        await asyncio.sleep(world.latency())
        if not frontend.is_alive:
            return None
        self._book.requests[self.plan.ref.tenant, self.plan.ref.job_id].add(self.plan.fingerprint)
        call = Call(self.plan, self.transcript, world.now, world.loop.create_future())
        frontend.serve(call)
        try:
            async with asyncio.timeout(leaves_after_s):
                how = await call.ended
        except TimeoutError:
            frontend.leave(call)
            return "left"
        if isinstance(how, MillraceError):
            self._check(how, call)
        return how

    def _check(self, error: MillraceError, call: Call) -> None:
        """An error that says something of the job must be true."""
        tenant, job_id = self.plan.ref.tenant, self.plan.ref.job_id
        if isinstance(error, AlreadyExists):
            others = self._book.requests[tenant, job_id] - {self.plan.fingerprint}
            if not others:
                self._world.fail(Broken("I7", f"{self.name} was refused a name that nobody else has asked for"))
        elif isinstance(error, NotFound | DataLoss):
            if self._has_stood(call):
                self._world.fail(Broken("I7", f"{self.name} was told {error.reason}, and its job stands"))
        elif error.reason == "QUEUE_REFUSED":
            self._world.fail(error)

    def _has_stood(self, call: Call) -> bool:
        """Whether the job was there all the time, and the same, since the call began or gave its first result."""
        received = self.transcript.received
        since_s = min([call.began_s, *(item.at for item in received[:1])])
        lives = self._book.of_name(self.plan.ref.tenant, self.plan.ref.job_id)
        recent = [life for life in lives if life.gone_s is None or life.gone_s >= since_s]
        asked = all(life.submission.fingerprint == self.plan.fingerprint for life in recent)
        return bool(recent) and asked and all(life.stood(since_s) for life in recent)

    def _cancel(self) -> None:
        alive = [frontend for frontend in self._frontends if frontend.is_alive]
        if alive:
            frontend = self._world.rng.choice(alive)
            frontend.spawn(_cancel(frontend, self.plan))


async def _cancel(frontend: Frontend, plan: Plan) -> None:
    with suppress(Unavailable):
        await frontend.cancel(plan, CANCELLED)


def _told(how: Ending | MillraceError | str | None) -> str:
    match how:
        case Ending(code=code, reason=reason):
            return f"ended {reason or code.name}"
        case MillraceError():
            return f"{how.code.name} {how.reason}"
        case None:
            return "connection broke"
        case _:
            return how
