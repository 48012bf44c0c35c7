"""What all actors of one schedule share: virtual time, chance, the server and its clock, the referee, the mail."""

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import hiredis
from redis.exceptions import NoScriptError

from millrace.queue.keys import ModelVersion
from millrace.queue.types import End, Result
from tests.queue.clock import START_MS
from tests.simulation.promise import Broken
from tests.simulation.referee import Referee
from tests.simulation.store import Command, Mail, Store
from tests.simulation.trace import Trace
from tests.simulation.verbs import Verb
from tests.simulation.weather import Weather

Receive = Callable[[str, Result | End], None]
JUDGED = frozenset({"submit", "watch", "unwatch", "end", "forget", "take", "emit", "renew", "release", "reap"})
"""Scripts whose answers the referee knows."""


class World:
    """Made inside the loop of its schedule."""

    def __init__(
        self,
        store: Store,
        names: dict[str, str],
        rng: Random,
        weather: Weather,
        referee: Referee,
        counts: Counter[str],
        trace: Trace,
    ) -> None:
        self.rng, self.weather, self.referee, self.counts, self.trace = rng, weather, referee, counts, trace
        self.loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self.loop.create_future()
        """Gets the first exception of anybody."""
        self.loop.set_exception_handler(lambda _, context: self.fail(_error(context)))
        self.mailboxes: dict[str, Receive] = {}
        self.bells: dict[str, tuple[ModelVersion, Callable[[], None]]] = {}
        self.calm = False
        """Nothing goes wrong any more."""
        self.is_away = False
        self.stalled_until = 0.0
        self.skew_ms = 0
        self.under_way = 0
        """Commands that have been sent and have not arrived."""
        self._store, self._names = store, names

    @property
    def now(self) -> float:
        return self.loop.time()

    @property
    def clock_ms(self) -> int:
        """The server's clock."""
        return START_MS + round(self.loop.time() * 1000) + self.skew_ms

    def latency(self) -> float:
        return self.rng.uniform(0.0002, 0.003)

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def note(self, who: str, what: str, *details: object) -> None:
        self.trace.note(self.loop.time(), who, what, *details)

    def fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    # ── the server ───────────────────────────────────────────────────────────────────────────────────────────────

    def execute(self, who: str, command: Command, verb: Verb | None) -> Any:
        """Carries a command out, now. An error reply that may be answered is returned as an exception."""
        try:
            return self._execute(who, command, verb)
        except NoScriptError as error:
            return error
        except (Broken, hiredis.ReplyError) as error:
            self.note(who, "BROKEN", error)
            self.fail(error)
            return error

    def _execute(self, who: str, command: Command, verb: Verb | None) -> Any:
        now_ms = self.clock_ms
        self.purge()
        name = self._names.get(command[1], "") if command[0] in ("EVALSHA", "EVAL") else ""
        self.count(f"command: {name or command[0]}")
        if verb is None or name not in JUDGED:
            reply = self._store.execute(command, now_ms)
            seen = [entry_id for entry_id, _ in reply] if command[0] == "XRANGE" else reply
            self.note(who, name or command[0], command[3] if name else command[1], "→", seen)
            return reply
        base = command[3]
        outcome = self._store.run_script(
            command,
            now_ms,
            bell=f"{base}bell",
            looked_at=self.referee.looked_at(base, verb),
            read=self.referee.logs(base, verb),
        )
        self.note(who, name, verb, "→", outcome.reply, *outcome.looks)
        self.referee.executed(base, verb, outcome, now_ms, self.now)
        self._post(outcome.mail)
        if outcome.rung:
            self._ring(base, outcome.rung)
        return outcome.reply

    def purge(self) -> None:
        """Keys whose time is over go."""
        purged = self._store.purge(self.clock_ms)
        if purged is not None and purged.names:
            self.note("server", "expired:", *sorted(purged.names))
            self.referee.expired(purged, self.clock_ms, self.now)

    def lose_scripts(self) -> None:
        """As a restart of the server does."""
        self._store.lose_scripts()

    # ── what the server tells by itself ──────────────────────────────────────────────────────────────────────────

    def _post(self, mail: Mail) -> None:
        for frontend, entries in mail:
            delay = self.latency()
            drawn = self.rng.random()
            if not self.calm and drawn < self.weather.lost_mail:
                self.count("network: mail lost")
                continue
            if not self.calm and drawn - self.weather.lost_mail < self.weather.late_mail:
                self.count("network: mail late")
                delay += self.rng.uniform(0.01, 4.0)
            self.loop.call_later(delay, self._deliver, frontend, entries)

    def _deliver(self, frontend: str, entries: list[tuple[str, Result | End]]) -> None:
        receive = self.mailboxes.get(frontend)
        if receive is not None:
            for job, entry in entries:
                receive(job, entry)

    def _ring(self, base: str, times: int) -> None:
        """Each ring wakes one worker."""
        idle = [wake for model, wake in self.bells.values() if model.base == base]
        for wake in self.rng.sample(idle, min(times, len(idle))):
            if self.rng.random() >= self.weather.deaf_worker:
                self.loop.call_later(self.latency(), wake)


def _error(context: dict[str, Any]) -> Exception:
    """Of what the loop reports: somebody's callback failed."""
    error = context.get("exception")
    return error if isinstance(error, Exception) else RuntimeError(context["message"])
