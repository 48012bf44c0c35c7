"""All experiments, in the order of the table."""

from tests.chaos import (
    cancels,
    continuation,
    failover,
    fairness,
    frontends_killed,
    memory_full,
    overload,
    poison,
    redis_restarted,
    replies_lost,
    rolling_restart,
    slow_readers,
    worker_frozen,
    workers_killed,
)
from tests.chaos.experiment import Experiment

EXPERIMENTS = (
    Experiment(number=1, title="kill -9 of workers", run=workers_killed.run),
    Experiment(number=2, title="a worker frozen for three leases", run=worker_frozen.run),
    Experiment(number=3, title="lost replies of Redis", run=replies_lost.run),
    Experiment(number=4, title="Redis restarted", run=redis_restarted.run),
    Experiment(number=5, title="fail-over to a stalled replica", run=failover.run),
    Experiment(number=6, title="kill -9 of frontends", run=frontends_killed.run),
    Experiment(number=7, title="readers that never read", run=slow_readers.run),
    Experiment(number=8, title="a flood of cancels", run=cancels.run),
    Experiment(number=9, title="overload", run=overload.run),
    Experiment(number=10, title="a tenant that floods", run=fairness.run),
    Experiment(number=11, title="a job that kills its worker", run=poison.run),
    Experiment(number=12, title="Redis at maxmemory", run=memory_full.run),
    Experiment(number=13, title="rolling restarts of everything", run=rolling_restart.run, only_long=True),
    Experiment(number=14, title="texts behind a kill", run=continuation.run, only_long=True),
)
