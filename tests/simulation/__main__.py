"""Simulates the queue's protocol on a virtual clock, on a real Valkey, schedule after schedule, each from its own seed.

    python -m tests.simulation                       3,000 schedules from a random seed
    python -m tests.simulation --seconds 600         for ten minutes
    python -m tests.simulation --seed 7 --schedules 500
    python -m tests.simulation --replay 7:123        one schedule again, with all that happened in it

The first broken promise ends it: its schedule is run again, and told event by event.
"""

import argparse
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator

from tests.queue.clock import clocked_scripts
from tests.simulation.rig import Ran, Rig
from tests.simulation.store import LocalValkey, Store

PROGRESS_S = 10.0


def main() -> int:
    options = _parse()
    with clocked_scripts(), LocalValkey() as server, Store(server.path) as store:
        rig = Rig(store)
        if options.replay:
            return _tell(rig.run(options.replay, trace=True))
        seed = options.seed if options.seed is not None else secrets.randbelow(1_000_000)
        print(f"seed {seed}", flush=True)
        broken = _simulate(rig, seed, options)
        _show(rig.counts)
        if broken is None:
            return 0
        print(f"\nschedule {broken.seed} broke a promise; once more, from its seed:\n")
        return _tell(rig.run(broken.seed, trace=True))


def _simulate(rig: Rig, seed: int, options: argparse.Namespace) -> Ran | None:
    """The first schedule that broke a promise, or None."""
    began = shown = time.monotonic()
    virtual_s, done = 0.0, 0
    for index in _indices(options):
        ran = rig.run(f"{seed}:{index}", trace=options.trace)
        if options.trace:
            _tell(ran)
        virtual_s, done = virtual_s + ran.virtual_s, done + 1
        now = time.monotonic()
        if now - shown > PROGRESS_S or ran.error is not None:
            shown = now
            _progress(done, now - began, virtual_s)
        if ran.error is not None:
            return ran
    _progress(done, time.monotonic() - began, virtual_s)
    return None


def _indices(options: argparse.Namespace) -> Iterator[int]:
    end = time.monotonic() + (options.seconds or 0)
    most = options.schedules or (None if options.seconds else 3_000)
    index = 0
    while (most is None or index < most) and (not options.seconds or time.monotonic() < end):
        yield index
        index += 1


def _progress(done: int, seconds: float, virtual_s: float) -> None:
    per_minute = done / seconds * 60
    print(
        f"{done:,} schedules in {seconds:.0f} s, {per_minute:,.0f} a minute; {virtual_s / 3600:,.1f} h of virtual time",
        flush=True,
    )


def _show(counts: Counter[str]) -> None:
    group = ""
    for what, number in sorted(counts.items()):
        kind, _, name = what.partition(": ")
        if kind != group:
            print(f"\n{kind}")
            group = kind
        print(f"  {name or kind:<36} {number:>10,}")


def _tell(ran: Ran) -> int:
    print(*ran.trace, sep="\n")
    print(f"\n{ran.seed}: {ran.error or 'every promise held'}")
    return 0 if ran.error is None else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schedules", type=int, help="how many (3000, or as many as --seconds allow)")
    parser.add_argument("--seconds", type=float, help="for how long")
    parser.add_argument("--seed", type=int, help="of all schedules; a random one where it is not given")
    parser.add_argument("--replay", metavar="SEED:INDEX", help="run this schedule alone, and tell all of it")
    parser.add_argument("--trace", action="store_true", help="tell every schedule")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
