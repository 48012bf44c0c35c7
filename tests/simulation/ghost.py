"""What a worker does that has not noticed that its lease is gone: it goes on to write, to renew, to hand back."""

from millrace.errors import Unavailable
from tests.simulation.held import Held
from tests.simulation.process import Process


async def haunt(process: Process, held: Held) -> None:
    """Uses a lease that is lost, a few times."""
    process.world.count("accident: a lost lease is used on")
    ref, token, rng = held.lease.ref, held.lease.token, process.world.rng
    for _ in range(rng.randint(1, 5)):
        await process.sleep(rng.choice([0.01, 0.1, 1.0]) * rng.random())
        try:
            match rng.randrange(4):
                case 0:
                    await process.queue.renew(ref.model, [(ref, token)])
                case 1:
                    await process.queue.release(ref.model, [(ref, token, len(held.tokens))])
                case _:
                    await _write(process, held)
        except Unavailable:
            pass


async def _write(process: Process, held: Held) -> None:
    """At the offset where the log goes on."""
    ref = held.lease.ref
    record = await process.queue.inspect(ref)
    if record is None:
        return
    held.offset, held.history = record.last_offset, record.history
    held.step()
    await process.queue.emit(ref.model, held.emissions(split=False, end_apart=False))
