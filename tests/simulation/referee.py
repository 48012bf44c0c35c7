"""Sees every script as it is carried out, in the server's order, and raises `Broken` at the first broken promise.

It knows nothing of keys: what it knows of a job follows from the verbs and their answers, by the invariants. Behind
each script it is shown how all jobs stand that have not ended, so that an end, a lapse or a theft shows at once.
"""

from millrace.queue import keys
from millrace.queue.keys import JobRef, ModelVersion
from millrace.queue.queue import REAP_JOBS
from millrace.queue.types import End, Verdict
from tests.simulation import rulings
from tests.simulation.book import Book
from tests.simulation.life import Life
from tests.simulation.promise import Broken
from tests.simulation.store import Look, Outcome, Purged
from tests.simulation.verbs import Emit, Forget, Reap, Submit, Unwatch, Verb

INDEX = keys.job_index("", "").removesuffix(":")


class Referee:
    """Judges by the book, and keeps it."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._looked_at: list[JobRef] = []

    def looked_at(self, base: str, verb: Verb | None) -> list[str]:
        """The keys of the jobs that are to be looked at behind this script."""
        refs = [life.submission.ref for life in self._book.unended if life.submission.ref.model.base == base]
        if isinstance(verb, Submit):
            placed = verb.submission.ref
            refs.append(JobRef(self._book.models[base], placed.tenant, placed.job_id))
        self._looked_at = list(dict.fromkeys(refs))
        return [keys.job(ref) for ref in self._looked_at]

    def logs(self, base: str, verb: Verb | None) -> list[str]:
        """The keys of the logs that this script may remove."""
        return [keys.results(ref) for ref in verb.refs if ref.model.base == base] if isinstance(verb, Forget) else []

    def executed(self, base: str, verb: Verb, outcome: Outcome, now: int, now_s: float) -> None:
        """A script was carried out."""
        book, model = self._book, self._book.models[base]
        book.pulses[model].see(now)
        watching = {life: list(life.watchers) for life in book.unended}
        rulings.apply(book, model, verb, outcome, now, now_s)
        for ref, look in zip(self._looked_at, outcome.looks, strict=True):
            if ref in book.standing:
                self._compare(book.standing[ref], look, verb, now)
        self._check_mail(watching, verb, outcome)
        if isinstance(verb, Reap) and outcome.reply[0] < REAP_JOBS:
            self._check_reaped(model, now)

    def expired(self, purged: Purged, now: int, now_s: float) -> None:
        """Keys went because their time was over."""
        for name in purged.names:
            if name.startswith(INDEX):
                self._book.lose_name(name.removeprefix(INDEX), now)
        for ref in list(self._book.standing):
            if keys.job(ref) in purged.names:
                self._book.bury(ref, purged.logs.get(keys.results(ref), []), now_s)

    def _compare(self, life: Life, look: Look, verb: Verb, now: int) -> None:
        """A job that was looked at, with what must be so."""
        pulse = self._book.pulses[life.submission.ref.model]
        if look.state == "ended":
            found = (look.code, look.reason)
            deserved = life.deserves(look.reason, now, pulse, reaped=isinstance(verb, Reap))
            if life.ending != found and (life.ending is not None or not deserved):
                raise Broken("I1", f"{life} ended with {found} for no reason, expected {life.ending or 'no end'}")
            life.end(*found)
            self._book.counts[f"ending: {look.reason or 'OK'}"] += 1
        elif life.ending is not None:
            raise Broken("I1", f"{life} is {look.state or 'gone'}, and its end {life.ending} was accepted")
        elif look.state == "waiting" and life.token:
            if not (isinstance(verb, Reap) and life.may_lapse(now, pulse)):
                raise Broken(
                    "I4", f"{life} was taken from its holder, whose lease runs until {life.lease_until - now} ms"
                )
            life.lapse()
            self._book.counts["life: a lease lapsed"] += 1
        elif look.state != ("running" if life.token else "waiting"):
            raise Broken("I4", f"{life} is {look.state or 'gone'} {'with' if life.token else 'without'} a holder")

    def _check_mail(self, watching: dict[Life, list[str]], verb: Verb, outcome: Outcome) -> None:
        """Who watches is told of every result and of the end."""
        told = {
            (frontend, job, -1 if isinstance(entry, End) else entry.offset)
            for frontend, entries in outcome.mail
            for job, entry in entries
        }
        news = [(life, -1) for life in watching if life.ending is not None]
        if isinstance(verb, Emit):
            verdicts = zip(verb.emissions, rulings.verdicts(outcome.reply), strict=True)
            written = [emission for emission, verdict in verdicts if verdict is Verdict.OK and emission.offset]
            news += [(self._book.find(emission.ref), emission.offset) for emission in written]
        for life, offset in news:
            left = verb.frontend if isinstance(verb, Unwatch) and life.submission.ref in verb.refs else None
            for frontend in watching[life]:
                if frontend != left and (frontend, str(life), offset) not in told:
                    raise Broken("mailbox", f"{frontend} was not told of {life}'s {offset if offset > 0 else 'end'}")

    def _check_reaped(self, model: ModelVersion, now: int) -> None:
        """What a reap must leave behind: nothing that is late, unwanted, or held by a lease that is over."""
        pulse = self._book.pulses[model]
        for life in self._book.unended:
            if life.submission.ref.model != model:
                continue
            if life.is_late(now):
                raise Broken("I1", f"{life} was reaped {now - life.deadline_ms} ms behind its deadline, and goes on")
            if not life.is_wanted(now - pulse.slip_ms, pulse):
                raise Broken("I5", f"{life} was reaped when nobody wanted it, and goes on")
            if life.may_lapse(now - pulse.slip_ms, pulse):
                raise Broken("I4", f"{life} was reaped {now - life.lease_until} ms behind its lease, and is still held")
