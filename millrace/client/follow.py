"""The resume loop: one stream of results over as many calls as it takes.

A call that is lost (UNAVAILABLE, or a broken connection, without the trailer that says that the job itself has ended)
is made again, on another frontend if there is one, from the last offset on. Before the first result that is a
repetition of the request under the same job_id, which attaches to the job if it was accepted.
"""

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc.aio

from millrace.client.frontends import Backoff, Frontend, Frontends
from millrace.client.status import Refusal
from millrace.errors import DataLoss, Exhausted


class Numbered(Protocol):
    """A result: GenerateResponse and JobResult are."""

    @property
    def offset(self) -> int: ...
    @property
    def history(self) -> int: ...


R = TypeVar("R", bound=Numbered)


@dataclass(slots=True)
class Place:
    """How far a stream has come: the last result's offset and running hash; and whether the job has ended."""

    offset: int = 0
    history: int = 0
    ended: bool = False
    refused: bool = False
    """The service answered that there is no such job to run or to watch."""

    def advance(self, result: Numbered) -> None:
        if result.offset != self.offset + 1:
            raise DataLoss(f"offset {result.offset} follows {self.offset}", reason="OFFSETS_BROKEN")
        self.offset, self.history = result.offset, result.history


Begin = Callable[[Frontend], grpc.aio.UnaryStreamCall[Any, R]]


async def follow(
    frontends: Frontends, begin: Begin[R], place: Place, backoff: Backoff, *, retry_exhausted: bool
) -> AsyncGenerator[R, None]:
    """Each result once, in order. `begin` makes the call that goes on from `place`.

    Raises what ended the job, what refused it, or Unavailable when the budget is spent.
    """
    while True:
        with frontends.turn() as frontend:
            call = begin(frontend)
            try:
                async for result in call:
                    place.advance(result)
                    backoff.renew()
                    frontend.problem = None
                    yield result
                place.ended = True
                return
            except grpc.aio.AioRpcError as failure:
                refusal = Refusal(failure)
            finally:
                call.cancel()
        place.ended, pause_s = refusal.ended, 0.0
        error = refusal.error
        if refusal.lost:
            await frontend.failed(refusal.text)
            error = frontend.problem or error
            if frontends.hopeless:
                raise error
        elif isinstance(error, Exhausted) and retry_exhausted and place.offset == 0:
            pause_s = error.retry_after_s
        else:
            place.refused = True
            raise error
        if not await backoff.wait(pause_s):
            raise error
