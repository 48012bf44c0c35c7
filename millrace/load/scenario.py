"""What a load test does: a YAML file, or flags. Every setting ends up in the result.

    name: chat
    model: pycode
    arrivals: {poisson: 20}            # requests a second
    requests: {prompt_tokens: {mean: 120, stdev: 40}, max_tokens: 64}
    seconds: 120
    slo: interactive

Flags of `millrace load` win over the file.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from millrace.client.tls import Tls

Task = Literal["generate", "infer", "embed", "classify", "transcribe"]
TASKS: dict[str, Task] = {
    "text-generation": "generate",
    "tensor": "infer",
    "text-embedding": "embed",
    "text-classification": "classify",
    "image-classification": "classify",
    "audio-classification": "classify",
    "speech-recognition": "transcribe",
}
"""What a model of each task is asked for unless the scenario says otherwise."""
PIECES = {"generate": "tokens", "transcribe": "segments"}
"""What comes piece by piece, by task; the others answer with all their rows at once."""


Rate = Annotated[float, Field(gt=0, le=100_000)]
"""Requests a second. What is more no generator could send."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Setting(Strict):
    """Numbers in it are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class Ramp(Setting):
    """The rate rises or falls evenly from the first second to the last."""

    start: float = Field(alias="from", ge=0)
    end: Rate = Field(alias="to")


class Steps(Setting):
    """One rate after the other, each held for an equal share of the seconds."""

    rates: Annotated[list[Rate], Field(min_length=1)]


class Arrivals(Setting):
    """When requests are due: exactly one of the fields. All but `callers` are open loops."""

    poisson: Rate | None = Field(default=None, description="requests a second, at exponential distances")
    constant: Rate | None = Field(default=None, description="requests a second, at equal distances")
    ramp: Ramp | None = None
    steps: Steps | None = None
    trace: Path | None = Field(
        default=None, description="CSV or JSON lines: arrival_s, prompt_tokens, output_tokens; the request's lengths"
    )
    callers: PositiveInt | None = Field(
        default=None, description="a closed loop: so many callers, each of which calls again when it is answered"
    )
    process: Literal["poisson", "constant"] = Field(default="poisson", description="of ramp and steps")

    @model_validator(mode="after")
    def _one(self) -> "Arrivals":
        chosen = [name for name in ("poisson", "constant", "ramp", "steps", "trace", "callers") if getattr(self, name)]
        if len(chosen) != 1:
            raise ValueError(f"give one of poisson, constant, ramp, steps, trace or callers, not {chosen or 'none'}")
        return self


class Spread(Setting):
    """A normal distribution, cut at `least` and `most`, rounded to whole tokens."""

    mean: PositiveFloat
    stdev: Annotated[float, Field(ge=0)] = 0.0
    least: PositiveInt = 1
    most: PositiveInt = 1_000_000


Length = PositiveInt | Spread


class Requests(Setting):
    """What is asked for. Which fields count depends on the task; those of another task are an error."""

    prompt: str | None = Field(default=None, description="one text for all")
    prompts: Path | None = Field(default=None, description="a text a line, taken in turn; or JSON lines with `prompt`")
    prompt_tokens: Length | None = Field(default=None, description="random token ids, so many")
    token_ids: tuple[int, int] = Field(default=(3, 250), description="random token ids are from here to below there")
    max_tokens: Length | None = None
    options: dict[str, Any] = Field(
        default={}, description="as AsyncClient.generate takes them: temperature, seed, ignore_eos, …"
    )
    inputs: dict[str, Any] = Field(
        default={}, description="of tensors: NAME: a .npy file, nested lists, or {shape: […]} for random values"
    )
    rows: PositiveInt = Field(default=1, description="of tensors without inputs: what each request's batch holds")
    texts: PositiveInt = Field(default=1, description="of an embedding: texts in each request")
    files: list[Path] = Field(default=[], description="images or sounds, taken in turn")
    priority: Literal["batch", "standard", "interactive"] | None = None
    timeout_s: PositiveFloat | None = Field(default=None, description="the job's deadline")


class Slo(Setting):
    """Limits in milliseconds that a good request keeps; None: no limit. A run meets them where the share `quantile` of
    its requests does, limit by limit."""

    ttft_ms: PositiveFloat | None = None
    tpot_ms: PositiveFloat | None = None
    e2e_ms: PositiveFloat | None = None
    quantile: Annotated[float, Field(gt=0, lt=1)] = 0.99
    errors: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.01, description="the largest share of requests that may be refused or fail"
    )


SLOS: dict[str, Slo] = {
    # MLPerf Inference, Llama 3.1 8B: the limits of its interactive and of its server scenario, at p99.
    "interactive": Slo(ttft_ms=500, tpot_ms=30),
    "server": Slo(ttft_ms=2000, tpot_ms=100),
}


class TlsFiles(Setting):
    """By which the frontends are known, and whoever calls; PEM."""

    ca: Path | None = Field(default=None, description="the authorities that are trusted; unset: this machine's")
    cert: Path | None = Field(default=None, description="the certificate that is shown")
    key: Path | None = Field(default=None, description="its key")
    server_name: str = Field(default="", description="the name in the frontends' certificates; unset: their host")


class Scenario(Setting):
    """One run against one service."""

    name: str = "load"
    address: str = Field(default="127.0.0.1:8001", description="frontends, HOST:PORT[,…]")
    http: str | None = Field(
        default=None,
        description="their /metrics, HOST:PORT[,…]; unset: each address's port + 1, or + 2 with TLS; empty: not read",
    )
    tls: bool | TlsFiles = Field(default=False, description="call by TLS: true, or the files")
    tenant: str | None = Field(default=None, description="unset: whose the API key in MILLRACE_API_KEY is, or default")
    model: str
    model_version: str = ""
    task: Task | None = Field(default=None, description="unset: by the model's task")
    arrivals: Arrivals
    requests: Requests = Requests()
    seconds: PositiveFloat = 30.0
    warmup_s: Annotated[float, Field(ge=0)] = Field(
        default=5.0, description="before them, with the load they begin with"
    )
    drain_s: Annotated[float, Field(ge=0)] = Field(
        default=30.0, description="how long requests that are under way at the end are waited for"
    )
    generators: PositiveInt | None = Field(
        default=None, description="processes; unset: one for each two cores, at most 8"
    )
    resume: bool = Field(default=False, description="streams that lose their frontend go on, as the client's do")
    verify: bool = Field(
        default=False, description="check every stream for lost, repeated, reordered or altered deltas"
    )
    slo: Slo | None = None
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and isinstance(given.get("slo"), str):
            if given["slo"] not in SLOS:
                raise ValueError(f"slo {given['slo']!r} is not one of {', '.join(SLOS)}; or give its limits")
            return {**given, "slo": SLOS[given["slo"]]}
        return given

    @property
    def addresses(self) -> list[str]:
        return self.address.split(",")

    @property
    def api_key(self) -> str | None:
        """It stands in the environment, which generators inherit: the scenario is part of results, which are shown."""
        return os.environ.get("MILLRACE_API_KEY")

    def client_tls(self) -> Tls | None:
        """Raises ValueError where a certificate has no key."""
        if isinstance(self.tls, bool):
            return Tls() if self.tls else None
        return Tls(ca=self.tls.ca, cert=self.tls.cert, key=self.tls.key, server_name=self.tls.server_name)


def read_scenario(path: Path, **changes: Any) -> Scenario:
    """The file's scenario, with `changes` in place of its own settings. Paths in it are relative to it. Raises
    ValueError with a sentence for each thing that is wrong, OSError where it cannot be read."""
    try:
        given = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not YAML: {error}") from error
    if not isinstance(given, dict):
        raise ValueError(f"{path} must hold settings, as `model: pycode`")
    return make_scenario(_anchor(given, path.parent) | changes, source=str(path))


def make_scenario(given: Mapping[str, Any], source: str = "scenario") -> Scenario:
    """Raises ValueError with a sentence for each thing that is wrong."""
    try:
        return Scenario.model_validate(given)
    except ValidationError as error:
        problems = (_sentence(".".join(map(str, one["loc"])), one["msg"]) for one in error.errors())
        raise ValueError(f"{source}\n" + "\n".join(f"  {problem}" for problem in problems)) from error


def _sentence(place: str, said: str) -> str:
    said = said.removeprefix("Value error, ")
    return f"{place}: {said}" if place else said


def _anchor(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The same with the paths in it made relative to here instead of to `folder`."""
    arrivals, requests = dict(given.get("arrivals") or {}), dict(given.get("requests") or {})
    for section, name in ((arrivals, "trace"), (requests, "prompts")):
        if isinstance(section.get(name), str):
            section[name] = folder / section[name]
    if isinstance(requests.get("files"), list):
        requests["files"] = [folder / str(file) for file in requests["files"]]
    if isinstance(requests.get("inputs"), dict):
        inputs = requests["inputs"].items()
        requests["inputs"] = {k: str(folder / v) if isinstance(v, str) else v for k, v in inputs}
    tls = given.get("tls")
    files = dict(tls) if isinstance(tls, dict) else {}
    files |= {name: folder / files[name] for name in ("ca", "cert", "key") if isinstance(files.get(name), str)}
    parts = (("arrivals", arrivals), ("requests", requests), ("tls", files))
    changed = {name: part for name, part in parts if part}
    return given | changed
