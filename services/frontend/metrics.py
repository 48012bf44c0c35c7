"""What one frontend counts, served at /metrics."""

import asyncio
from collections.abc import Callable

from prometheus_client import Counter, Gauge, Histogram

from millrace.exposition import make_registry

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

ALARMING = ("MEMORY_FULL", "POISON_JOB", "HISTORY_DIFFERS", "RESULTS_LOST", "JOB_LOST", "JOB_INCOMPLETE")
"""Reasons whose first time must be seen: a series that begins with 1 has not increased."""


class Metrics:
    """All series of one frontend, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = make_registry()
        tasks = Gauge("millrace_frontend_tasks", "tasks of the event loop", registry=self.registry)
        loop = asyncio.get_running_loop()
        tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
        self.calls = Counter(
            "millrace_frontend_calls", "calls that have ended", ["method", "code"], registry=self.registry
        )
        self.streams = Gauge("millrace_frontend_streams", "streams open", registry=self.registry)
        self.results = Counter("millrace_frontend_results", "results relayed", registry=self.registry)
        self.first_result = Histogram(
            "millrace_frontend_first_result_seconds",
            "from the call's arrival to its first result",
            buckets=SECONDS,
            registry=self.registry,
        )
        self.log_reads = Counter("millrace_frontend_log_reads", "reads of results logs", registry=self.registry)
        self.submitted = Counter(
            "millrace_frontend_jobs_submitted", "jobs accepted by the queue, or found in it", registry=self.registry
        )
        self.refused = Counter(
            "millrace_frontend_calls_refused",
            "calls ended by an error, by its reason (SLOW_READER: nobody read)",
            ["reason"],
            registry=self.registry,
        )
        for reason in ALARMING:
            self.refused.labels(reason)

    def watch_certificate(self, expires_in_s: Callable[[], float]) -> None:
        expiry = Gauge(
            "millrace_tls_certificate_expiry_seconds",
            "until the certificate that callers are shown expires; negative: since it has",
            registry=self.registry,
        )
        expiry.set_function(expires_in_s)
