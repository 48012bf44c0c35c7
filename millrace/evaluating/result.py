"""What came of an evaluation, as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from millrace.evaluating.kinds import Kind, Strict
from millrace.evaluating.scores.resampling import Difference, Measure

SCHEMA = "millrace.evaluation/1"
Verdict = Literal["same", "better", "worse"]


class Data(Strict):
    name: str = Field(description="of the file or folder")
    sha256: str = Field(description="of the file, and of the images and sounds that it names")
    examples: int


class Curve(Strict):
    """Of one label; at most 200 points."""

    label: str
    area: float = Field(description="under the ROC curve; of precision over recall, the average precision")
    x: Sequence[float]
    y: Sequence[float]


class Label(Strict):
    """How one label fares."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int = Field(description="examples whose right label it is")


class Bin(Strict):
    """Of answers that are about as sure."""

    confidence: float = Field(description="mean probability of the answers")
    accuracy: float
    examples: int


class Shown(Strict):
    """An example that went badly, or least well."""

    id: str
    truth: str
    answer: str
    remark: str = Field(default="", description="how badly")
    excerpt: str = Field(default="", description="of its text")
    thumbnail: str | None = Field(default=None, description="of its image, PNG, base64")


class Failed(Strict):
    """Examples without an answer, by the reason."""

    code: str
    reason: str
    count: int
    id: str = Field(description="of the first")
    message: str = Field(description="of the first")


class System(Strict):
    """One model version's answers."""

    model: str
    version: str
    digest: str = Field(description="SHA-256 of the version's files; empty where the service does not tell it")
    answered: int
    failed: int
    measures: Sequence[Measure]
    labels: Sequence[Label] = ()
    confusion: Sequence[Sequence[int]] = Field(default=(), description="[right, given], in the order of labels")
    roc: Sequence[Curve] = ()
    precision_recall: Sequence[Curve] = ()
    calibration: Sequence[Bin] = ()
    worst: Sequence[Shown] = ()
    failures: Sequence[Failed] = ()

    @property
    def title(self) -> str:
        return f"{self.model}/{self.version}"

    def measure(self, name: str) -> Measure | None:
        return next((one for one in self.measures if one.name == name), None)


class Comparison(Strict):
    """Of both on the examples that both have answered: `before` is the one given by --against."""

    before: str
    after: str
    examples: int
    primary: str = Field(description="the measure that the verdict is about")
    rows: Sequence[Difference]
    test: str = Field(description="by which the verdict was found")
    only_before: int | None = Field(default=None, description="examples that only the first has right")
    only_after: int | None = None
    p_value: float | None = Field(default=None, description="of McNemar's exact test, two-sided")
    verdict: Verdict = Field(description="of the second: same where the difference may be chance, at 5 %")


class Result(Strict):
    schema_name: Literal["millrace.evaluation/1"] = Field(default="millrace.evaluation/1", alias="schema")
    kind: Kind
    data: Data
    started_at: str = Field(description="ISO 8601, UTC, of the start that ended it")
    seconds: float = Field(description="of that start")
    settings: Mapping[str, str | int | float | bool | Sequence[str]]
    versions: Mapping[str, str]
    system: System
    against: System | None = None
    comparison: Comparison | None = None


def read_result(path: Path) -> Result:
    """Raises ValueError for a file that is not a result of this version, OSError where there is none."""
    try:
        return Result.model_validate_json(path.read_text())
    except (ValidationError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a result of `millrace evaluate` ({SCHEMA})") from error


def write_result(result: Result, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(result.model_dump_json(by_alias=True, indent=1))
