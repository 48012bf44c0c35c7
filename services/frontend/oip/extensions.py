"""What Triton's clients set while a server runs, its log and its traces; and the shared memory that it has not."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import NoReturn

from millrace.errors import Code, MillraceError, Violation
from millrace.oip.inference_pb2 import (
    LogSettingsRequest,
    LogSettingsResponse,
    TraceSettingRequest,
    TraceSettingResponse,
)
from millrace.telemetry import Levels, levels
from services.frontend.border import Border, Method
from services.frontend.call import Call
from services.frontend.models import Models
from services.frontend.oip.inference import SERVICE
from services.frontend.parse import decode, raise_any
from services.frontend.readiness import Readiness
from services.frontend.rules import Bounds
from services.frontend.tracing import UNBOUNDED, TraceSettings, Tracing

SHARED_MEMORY = tuple(
    f"{kind}SharedMemory{verb}" for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")
)
OFF, TIMESTAMPS = "OFF", "TIMESTAMPS"
WHOLE = re.compile(r"-?[0-9]{1,10}")
LARGEST = 2**31 - 1
SHOWN = 64
"""Characters of a name that nobody knows."""
LogValue = LogSettingsRequest.SettingValue


class NotServed(MillraceError):
    """A call of the protocol that this service has not."""

    code = Code.UNIMPLEMENTED


class Extensions:
    """The part of inference.GRPCInferenceService that sets. What it sets is of this frontend alone, until it ends."""

    def __init__(self, models: Models, readiness: Readiness, tracing: Tracing, bounds: Bounds) -> None:
        self._models, self._readiness, self._tracing, self._bounds = models, readiness, tracing, bounds

    def methods(self, border: Border) -> dict[str, Method]:
        return {
            "LogSettings": border.unary(f"{SERVICE}/LogSettings", self.log_settings, admin=True),
            "TraceSetting": border.unary(f"{SERVICE}/TraceSetting", self.trace_setting, admin=True),
            **{name: border.unary(f"{SERVICE}/{name}", self.shared_memory) for name in SHARED_MEMORY},
        }

    async def shared_memory(self, _raw: bytes, _call: Call) -> NoReturn:
        text = "there is no shared memory: callers and workers are different machines; send tensors in the request"
        raise NotServed(text, reason="NO_SHARED_MEMORY")

    async def log_settings(self, raw: bytes, _call: Call) -> LogSettingsResponse:
        request = decode(LogSettingsRequest, raw, self._bounds.max_request_bytes)
        raise_any(_check_log(request))
        for name, value in request.settings.items():
            if name in LEVELS:
                setattr(levels, LEVELS[name], value.bool_param)
            elif name == "log_verbose_level":
                levels.verbose = value.uint32_param > 0
        return _tell_log(levels)

    async def trace_setting(self, raw: bytes, _call: Call) -> TraceSettingResponse:
        """Raises NotFound where there is no such model."""
        request = decode(TraceSettingRequest, raw, self._bounds.max_request_bytes)
        changes: dict[str, int | None] = {}
        raise_any(_read_trace(request, changes))
        if request.model_name:
            self._readiness.require()
            await self._models.resolve(request.model_name, "")
        return _tell_trace(self._tracing.change(request.model_name, changes))


def _field(name: str) -> str:
    return f"settings[{name[:SHOWN]}]"


# ── the log ──────────────────────────────────────────────────────────────────────────────────────────────────────────

LEVELS = {"log_info": "info", "log_warning": "warning", "log_error": "error"}


def _check_log(request: LogSettingsRequest) -> Iterator[Violation]:
    for name, value in request.settings.items():
        rule = LOG_RULES.get(name)
        if rule is None:
            yield Violation(_field(name), f"is not known; {', '.join(LOG_RULES)} are")
        elif not rule[0](value):
            yield Violation(_field(name), rule[1])


def _is(value: LogValue, kind: str) -> bool:
    return value.WhichOneof("parameter_choice") == kind


LOG_RULES: dict[str, tuple[Callable[[LogValue], bool], str]] = {
    "log_file": (
        lambda value: _is(value, "string_param") and not value.string_param,
        "cannot be set: the log goes to standard error",
    ),
    **{name: (lambda value: _is(value, "bool_param"), "must be true or false") for name in LEVELS},
    "log_verbose_level": (lambda value: _is(value, "uint32_param"), "must be a number: 0, or 1 for debug lines"),
    "log_format": (
        lambda value: _is(value, "string_param") and value.string_param == "default",
        "can only be default: how lines look is said when the process starts",
    ),
}


def _tell_log(told: Levels) -> LogSettingsResponse:
    response = LogSettingsResponse()
    response.settings["log_file"].string_param = ""
    for name, level in LEVELS.items():
        response.settings[name].bool_param = getattr(told, level)
    response.settings["log_verbose_level"].uint32_param = int(told.verbose)
    response.settings["log_format"].string_param = "default"
    return response


# ── traces ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _read_trace(request: TraceSettingRequest, changes: dict[str, int | None]) -> Iterator[Violation]:
    """Fills in what the settings change."""
    for name, value in request.settings.items():
        try:
            changes |= _read_setting(name, list(value.value))
        except ValueError as error:
            yield Violation(_field(name), str(error))


def _read_setting(name: str, values: list[str]) -> dict[str, int | None]:
    """By the names of TraceSettings: None without a value. Raises ValueError."""
    match name:
        case "trace_level":
            return {"on": _level(values) if values else None}
        case "trace_rate":
            return {"rate": _whole(values, 1) if values else None}
        case "trace_count":
            return {"count": _whole(values, UNBOUNDED) if values else None}
        case "log_frequency":
            if values not in ([], ["0"]):
                raise ValueError("can only be 0: each trace is written when its request ends")
        case "trace_mode":
            if values not in ([], ["triton"]):
                raise ValueError("can only be triton")
        case "trace_file":
            if any(values):
                raise ValueError("cannot be set: traces are events of the log, called request.trace")
        case _:
            raise ValueError("is not known")
    return {}


def _level(values: Iterable[str]) -> bool:
    if unknown := set(values) - {OFF, TIMESTAMPS}:
        raise ValueError(f"takes {OFF} and {TIMESTAMPS}, not {min(unknown)[:SHOWN]}: contents are not traced")
    return TIMESTAMPS in values


def _whole(values: list[str], least: int) -> int:
    if len(values) != 1 or not WHOLE.fullmatch(values[0]):
        raise ValueError("must be one whole number")
    if not least <= (value := int(values[0])) <= LARGEST:
        raise ValueError(f"must be {least} to {LARGEST}")
    return value


def _tell_trace(settings: TraceSettings) -> TraceSettingResponse:
    told = {
        "trace_level": TIMESTAMPS if settings.on else OFF,
        "trace_rate": str(settings.rate),
        "trace_count": str(settings.count),
        "log_frequency": "0",
        "trace_mode": "triton",
        "trace_file": "",
    }
    response = TraceSettingResponse()
    for name, value in told.items():
        response.settings[name].value.append(value)
    return response
