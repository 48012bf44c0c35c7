"""What became of jobs, observed once for each, when its end is in its log: some 7 µs, 15 for a generation."""

from collections.abc import Callable

from google.protobuf.duration_pb2 import Duration
from prometheus_client import CollectorRegistry, Counter, Histogram

from millrace.errors import Code
from millrace.exposition import exemplar
from millrace.queue import Priority
from services.worker.results import Ended

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
TOKEN_S = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.2, 0.5, 1.0)
ATTEMPTS = (1, 2, 3, 5, 10)
Observe = Callable[[Ended], None]


class JobSeries:
    """By model. Exemplars are the traces of jobs that are traced."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Histogram:
            labelled = ["model", *labels]
            return Histogram(f"millrace_worker_{name}", text, labelled, buckets=buckets, registry=registry)

        def counter(name: str, text: str) -> Counter:
            return Counter(f"millrace_worker_{name}", text, ["model"], registry=registry)

        self._wait = histogram("wait_seconds", "from submission to the first lease", "priority")
        self._job = histogram("job_seconds", "from submission to the end; jobs that succeeded")
        self._ttft = histogram("ttft_seconds", "generations: from submission to the first result")
        self._prefill = histogram("prefill_seconds", "generations: from the engine's having it to its first output")
        self._decode = histogram("decode_seconds", "generations: from the first output to the last")
        self._tpot = histogram("tpot_seconds", "generations: time for each further output token", buckets=TOKEN_S)
        self._attempts = histogram(
            "attempts",
            "workers that have held the job; all beyond the first are leases that were lost",
            buckets=ATTEMPTS,
        )
        self._prompt = counter("prompt_tokens", "of generations that succeeded: what their callers sent")
        self._cached = counter("cached_prompt_tokens", "and of those, what was found in a cache")
        self._completion = counter("completion_tokens", "of generations that succeeded: what their callers got")
        self._strikes = counter("strikes", "of the jobs that ended here: leases lost without a result behind the last")
        self.histograms = (self._wait, self._job, self._ttft, self._prefill, self._decode, self._tpot)

    def of(self, model: str) -> Observe:
        waits = {priority: self._wait.labels(model, priority.name.lower()) for priority in Priority}
        job, attempts, strikes = self._job.labels(model), self._attempts.labels(model), self._strikes.labels(model)
        generation = self._generation(model)

        def observe(ended: Ended) -> None:
            lease, trace = ended.lease, exemplar(ended.lease.trace)
            waits[lease.priority].observe(_seconds(ended.timing.queued), trace)
            attempts.observe(lease.attempts)
            strikes.inc(lease.strikes)
            if ended.ending.code is Code.OK and ended.results > lease.last_offset:
                job.observe(until_first_output(ended) + _seconds(ended.timing.remaining_output), trace)
                if ended.usage.completion_tokens:
                    generation(ended)

        return observe

    def _generation(self, model: str) -> Observe:
        ttft, tpot = self._ttft.labels(model), self._tpot.labels(model)
        prefill, decode = self._prefill.labels(model), self._decode.labels(model)
        prompt, cached, completion = (
            counter.labels(model) for counter in (self._prompt, self._cached, self._completion)
        )

        def observe(ended: Ended) -> None:
            """Times are those of generations that one worker has made alone."""
            usage, timing = ended.usage, ended.timing
            prompt.inc(usage.prompt_tokens)
            cached.inc(usage.cached_prompt_tokens)
            completion.inc(usage.completion_tokens)
            if ended.lease.last_offset:
                return
            trace, remaining_s = exemplar(ended.lease.trace), _seconds(timing.remaining_output)
            ttft.observe(until_first_output(ended), trace)
            prefill.observe(_seconds(timing.first_output), trace)
            decode.observe(remaining_s, trace)
            if usage.completion_tokens > 1:
                tpot.observe(remaining_s / (usage.completion_tokens - 1), trace)

        return observe


def until_first_output(ended: Ended) -> float:
    """Seconds from the submission to the first output under the last lease."""
    lease, timing = ended.lease, ended.timing
    leased_s = max(lease.take_ms - lease.submit_ms, 0) / 1000
    return leased_s + _seconds(timing.batching) + _seconds(timing.first_output)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / 1e9
