"""What a child process is told, and what it answers: both are JSON."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from millrace.optimizing.order import Calibration, Device, Method
from millrace.optimizing.subjects.subject import Metric


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Job(Message):
    """`make` a candidate's graph, `judge` its outputs, or `measure` its speed and memory."""

    kind: Literal["make", "judge", "measure"]
    folder: str
    """The original version's."""
    device: Device
    graph: str
    """The candidate's; `make` writes it."""
    method: Method | None = None
    """None: the original."""
    data: str | None = None
    calibration: str | None = None
    calibrate: Calibration = Calibration.MINMAX
    reference: str
    """The folder of the original's outputs: the original's `judge` writes it, the others read it."""
    seconds: float = 2.0
    threads: int = 0


class Made(Message):
    size_bytes: int


class Judgement(Message):
    metric: Metric | None
    score: float | None
    difference: float
    """From the original's outputs: the largest, in units of that output's largest value."""


class Measures(Message):
    unit: str
    p50_ms: float
    p99_ms: float
    """Of one row; of a decoder, of a step behind a past."""
    rates: dict[int, float]
    """Rows or tokens a second, by rows of a run."""
    memory_bytes: int
    """The peak of loading the graph and of all these runs, beyond what the process had before."""


class Refusal(Message):
    """Why there is no answer: the method does not apply, or something failed."""

    words: str


Content = Made | Judgement | Measures | Refusal


class Answer(Message):
    content: Content
