"""What came of a load test, as JSON. Times are seconds from the begin of measuring, negative while warming up."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from hdrh.histogram import HdrHistogram
from pydantic import Field, ValidationError

from millrace.load.scenario import Scenario, Strict

SCHEMA = "millrace.load/1"
LEAST_US, MOST_US, DIGITS = 1, 3_600_000_000, 3
"""What latencies' histograms hold: microseconds up to an hour, within a thousandth."""
Metric = Literal["e2e", "ttft", "tpot", "itl", "late"]
METRICS: tuple[Metric, ...] = ("e2e", "ttft", "tpot", "itl", "late")
"""`late`: how long after a request was due it was sent, which is the generator's fault and not the service's."""
OK = "OK"


def histogram() -> HdrHistogram:
    """An empty one, of microseconds."""
    return HdrHistogram(LEAST_US, MOST_US, DIGITS)


class Counts(Strict):
    """Of requests, and what they brought."""

    due: int = Field(default=0, description="that were due, sent or not; in a closed loop those that were sent")
    ended: Mapping[str, int] = Field(default={}, description="by code: OK, RESOURCE_EXHAUSTED, …")
    reasons: Mapping[str, int] = Field(default={}, description="of those that failed, by reason: QUEUE_FULL, …")
    good: int = Field(default=0, description="that met the SLO; without one, that ended OK")
    tokens: int = Field(default=0, description="received; of tensors and embeddings, rows; of sounds, segments")
    prompt_tokens: int = 0

    @property
    def ok(self) -> int:
        return self.ended.get(OK, 0)

    @property
    def all_ended(self) -> int:
        return sum(self.ended.values())


class Interval(Counts):
    """About a second of it. Requests count where they ended, `due` where they were due; histograms hold only requests
    that were due while it was measured, so that the warm-up has none, and what drains after it has some."""

    at_s: float
    seconds: float
    in_flight: int = Field(description="at its end")
    histograms: Mapping[Metric, str] = Field(default={}, description="HdrHistogram V2, base64, of microseconds")


class Stage(Counts):
    """A stretch of equal load. Counts and histograms are of the requests that were due in it, whenever they ended."""

    begin_s: float
    end_s: float
    rate: float | None = Field(description="requests a second on offer; None: a closed loop")
    callers: int | None = None
    answered: int = Field(default=0, description="requests that ended OK within the stage, whenever they were due")
    histograms: Mapping[Metric, str] = {}

    @property
    def seconds(self) -> float:
        return self.end_s - self.begin_s

    @property
    def offered_rate(self) -> float:
        """Requests a second that were due."""
        return self.due / self.seconds

    @property
    def throughput(self) -> float:
        """Requests a second that ended OK within it."""
        return self.answered / self.seconds

    @property
    def goodput(self) -> float:
        return self.good / self.seconds


class ServerSample(Strict):
    """What the frontends' /metrics said of the model at a moment."""

    at_s: float
    waiting_jobs: float = 0.0
    running_jobs: float = 0.0
    estimated_wait_s: float = 0.0
    ready_workers: float = 0.0
    runs: float = Field(default=0.0, description="steps, a counter")
    rows: float = Field(default=0.0, description="rows or sequences in those steps, a counter")


class Generator(Strict):
    """One of the processes that made the calls."""

    cpu_share: float = Field(description="of one core, while it measured")
    late_p99_ms: float
    sent: int


class Fault(Strict):
    """A stream that was not as promised."""

    job_id: str
    kind: str
    detail: str


class Verification(Strict):
    streams: int = 0
    deltas: int = 0
    faults: Sequence[Fault] = Field(default=(), description="the first hundred")
    fault_count: int = 0


class Result(Strict):
    """A whole run."""

    schema_name: Literal["millrace.load/1"] = Field(default="millrace.load/1", alias="schema")
    scenario: Scenario
    started_at: str = Field(description="ISO 8601, UTC")
    task: str
    versions: Mapping[str, str]
    hardware: Mapping[str, str | int | float]
    intervals: Sequence[Interval]
    stages: Sequence[Stage]
    total: Stage = Field(description="all that was due while it was measured")
    server: Sequence[ServerSample] = ()
    generators: Sequence[Generator] = ()
    bottleneck: str | None = Field(
        default=None, description="why the generator itself may be what was measured, and what to do about it"
    )
    verification: Verification | None = None
    notes: Sequence[str] = Field(default=(), description="what else a reader has to know")

    @property
    def is_faulty(self) -> bool:
        return self.verification is not None and self.verification.fault_count > 0


def encode(held: HdrHistogram) -> str:
    return str(held.encode().decode())


def decode(encoded: str | None) -> HdrHistogram:
    """A stored histogram; an empty one for None."""
    return HdrHistogram.decode(encoded) if encoded else histogram()


def quantile_ms(encoded: str | None, share: float) -> float | None:
    """In milliseconds; None where nothing was recorded."""
    held = decode(encoded)
    return held.get_value_at_percentile(100 * share) / 1000 if held.total_count else None


def read_result(path: Path) -> Result:
    """Raises ValueError for a file that is not a result of this version, OSError where there is none."""
    try:
        return Result.model_validate_json(path.read_text())
    except (ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a result of `millrace load` ({SCHEMA})") from error


def write_result(result: Result, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(result.model_dump_json(by_alias=True))
