"""What the dashboard shows. Queries have Grafana's variables: $namespace, $model, and $__rate_interval for rates.

What frontends say of the fleet is the same on each: max, never sum.
"""

from dataclasses import dataclass

ON = '{namespace=~"$namespace"}'
OF = '{namespace=~"$namespace",model=~"$model"}'


@dataclass(frozen=True, slots=True)
class Query:
    expression: str
    legend: str
    """With labels as {{label}}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    title: str
    description: str
    unit: str = "short"
    """Grafana's: short, s, percentunit, reqps (a second), bytes."""
    queries: tuple[Query, ...]
    stacked: bool = False
    most: float | None = None
    """Where the axis ends; unset: by what is shown."""


@dataclass(frozen=True, slots=True)
class Row:
    title: str
    panels: tuple[Panel, ...]


def rate(series: str, selector: str = OF) -> str:
    return f"rate({series}{selector}[$__rate_interval])"


def quantiles(histogram: str, selector: str = OF) -> tuple[Query, ...]:
    """The median and the 99th percentile over all that count."""
    rates = f"sum by (le) ({rate(histogram + '_bucket', selector)})"
    return tuple(
        Query(f"histogram_quantile({share}, {rates})", name) for share, name in ((0.5, "median"), (0.99, "99 %"))
    )


def mean(histogram: str, by: str) -> str:
    return f"sum by ({by}) ({rate(histogram + '_sum')}) / sum by ({by}) ({rate(histogram + '_count')})"


IS_IT_WELL = Row(
    "Is it well?",
    (
        Panel(
            title="Jobs done",
            description="Jobs that ended with success.",
            unit="reqps",
            queries=(
                Query(
                    'sum by (model) (rate(millrace_worker_jobs_ended_total{namespace=~"$namespace",model=~"$model",'
                    'code="OK"}[$__rate_interval]))',
                    "{{model}}",
                ),
            ),
            stacked=True,
        ),
        Panel(
            title="Time to the first token",
            description="From submission to the first result, as workers measure it.",
            unit="s",
            queries=(
                *quantiles("millrace_worker_ttft_seconds"),
                Query(
                    f"histogram_quantile(0.99, sum by (le) ({rate('millrace_worker_wait_seconds_bucket')}))",
                    "99 % of the wait",
                ),
            ),
        ),
        Panel(
            title="Time for each further token",
            description="The mean of a generation: 1 / (tokens per second that its caller sees).",
            unit="s",
            queries=quantiles("millrace_worker_tpot_seconds"),
        ),
        Panel(
            title="Calls that ended with an error",
            description="By their reason; docs/operations.md names them. QUEUE_FULL is overload, not a fault.",
            unit="reqps",
            queries=(
                Query(f"sum by (reason) ({rate('millrace_frontend_calls_refused_total', ON)}) > 0", "{{reason}}"),
            ),
            stacked=True,
        ),
    ),
)
QUEUE = Row(
    "Queue and overload",
    (
        Panel(
            title="Jobs that wait and run",
            description="In the whole fleet.",
            queries=(
                Query(f"sum(max by (model) (millrace_queue_waiting_jobs{OF}))", "waiting"),
                Query(f"sum(max by (model) (millrace_queue_running_jobs{OF}))", "running"),
            ),
        ),
        Panel(
            title="Work that waits",
            description="Estimated, in tokens or rows, by priority class.",
            queries=(
                Query(
                    f"sum by (priority) (max by (model, priority) (millrace_queue_waiting_cost{OF}))", "{{priority}}"
                ),
            ),
            stacked=True,
        ),
        Panel(
            title="Wait for a worker, 99 %",
            description="From submission to the first lease, by priority class; and what a new job would wait.",
            unit="s",
            queries=(
                Query(
                    f"histogram_quantile(0.99, sum by (le, priority) ({rate('millrace_worker_wait_seconds_bucket')}))",
                    "{{priority}}",
                ),
                Query(f"max(millrace_queue_estimated_wait_seconds{OF})", "estimate"),
            ),
        ),
        Panel(
            title="Calls taken and refused",
            description="Jobs that the queue took, and calls refused for want of room.",
            unit="reqps",
            queries=(
                Query(f"sum({rate('millrace_frontend_jobs_submitted_total', ON)})", "taken"),
                Query(
                    'sum(rate(millrace_frontend_calls_total{namespace=~"$namespace",code="RESOURCE_EXHAUSTED"}'
                    "[$__rate_interval])) or vector(0)",
                    "refused",
                ),
            ),
        ),
    ),
)
ENGINE = Row(
    "Engine",
    (
        Panel(
            title="Tokens",
            description="Computed by the engines, prompts and completions.",
            unit="reqps",
            queries=(
                Query(f"sum({rate('millrace_engine_completion_tokens_total')})", "completion"),
                Query(f"sum({rate('millrace_engine_prompt_tokens_total')})", "prompt"),
            ),
        ),
        Panel(
            title="Steps",
            description="How long a run of the model takes.",
            unit="s",
            queries=quantiles("millrace_worker_step_seconds"),
        ),
        Panel(
            title="Rows in a run",
            description="Mean batch size; sequences, where it generates.",
            queries=(Query(mean("millrace_worker_batch_size", "model"), "{{model}}"),),
        ),
        Panel(
            title="KV memory and prefix cache",
            description="The share of KV blocks (slots) in use, by worker; the share of prompts found in a cache.",
            unit="percentunit",
            most=1.0,
            queries=(
                Query(f"max by (instance) (millrace_engine_kv_cache_usage{OF})", "KV {{instance}}"),
                Query(
                    f"sum({rate('millrace_engine_prefix_cache_hit_tokens_total')})"
                    f" / sum({rate('millrace_engine_prefix_cache_queried_tokens_total')})",
                    "prefix cache",
                ),
            ),
        ),
    ),
)
DURABILITY = Row(
    "Durability",
    (
        Panel(
            title="Leases lost",
            description="Of jobs that ended: leases beyond the first. Workers died or hung, or could not renew.",
            unit="reqps",
            queries=(
                Query(
                    f"sum({rate('millrace_worker_attempts_sum')}) - sum({rate('millrace_worker_attempts_count')})",
                    "lost",
                ),
                Query(f"sum({rate('millrace_worker_strikes_total')})", "without a result"),
            ),
        ),
        Panel(
            title="Jobs that workers let go of",
            description="lost: their lease, also by a cancel; gap: Redis lost results; unwanted: nobody waits.",
            unit="reqps",
            queries=(Query(f"sum by (verdict) ({rate('millrace_worker_jobs_dropped_total')})", "{{verdict}}"),),
            stacked=True,
        ),
        Panel(
            title="Results relayed, and reads of their logs",
            description="Reads stay far below results while mailboxes work.",
            unit="reqps",
            queries=(
                Query(f"sum({rate('millrace_frontend_results_total', ON)})", "results"),
                Query(f"sum({rate('millrace_frontend_log_reads_total', ON)})", "log reads"),
            ),
        ),
        Panel(
            title="Redis, workers, stalls",
            description="1 while Redis answers each frontend; workers ready; for how long a step has been running.",
            queries=(
                Query(f"min(millrace_frontend_redis_up{ON})", "Redis"),
                Query(f"max(millrace_queue_ready_workers{OF})", "workers"),
                Query(f"max(millrace_worker_device_stall_seconds{ON})", "stall (s)"),
            ),
        ),
    ),
)
FRONTENDS = Row(
    "Frontends",
    (
        Panel(
            title="Calls",
            description="That have ended, by their status.",
            unit="reqps",
            queries=(Query(f"sum by (code) ({rate('millrace_frontend_calls_total', ON)}) > 0", "{{code}}"),),
            stacked=True,
        ),
        Panel(
            title="Open streams",
            description="By frontend.",
            queries=(Query(f"millrace_frontend_streams{ON}", "{{instance}}"),),
            stacked=True,
        ),
        Panel(
            title="First result",
            description="From a call's arrival at a frontend, for calls of every kind.",
            unit="s",
            queries=quantiles("millrace_frontend_first_result_seconds", ON),
        ),
        Panel(
            title="CPU",
            description="Cores in use, by process.",
            queries=(Query(f"sum by (instance) ({rate('process_cpu_seconds_total', ON)})", "{{instance}}"),),
            stacked=True,
        ),
    ),
)
ROWS = (IS_IT_WELL, QUEUE, ENGINE, DURABILITY, FRONTENDS)
