"""The scenario that a file and the flags of `millrace load` make together."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from millrace.cli.arrays import wrong
from millrace.cli.load.flags import Flags
from millrace.load.scenario import Scenario, make_scenario, read_scenario

ARRIVALS = {
    "rate": "poisson",
    "constant": "constant",
    "ramp": "ramp",
    "steps": "steps",
    "trace": "trace",
    "callers": "callers",
}
"""Flags that say when requests are due, and the setting that each stands for."""
SOURCES = ("prompt", "prompts", "prompt_tokens")
"""Settings that say what a prompt is; a flag of one takes the place of whichever the file has."""


def scenario_of(flags: Flags) -> Scenario:
    """Raises InvalidRequest or ValueError with a sentence for each thing that is wrong, OSError for the file."""
    changes, requests = settings(flags), asked_for(flags)
    if flags.scenario is None:
        _needs_no_file(changes)
        return make_scenario({"name": changes["model"], **changes, "requests": requests}, source="the flags")
    scenario = read_scenario(flags.scenario, **changes)
    given = scenario.model_dump(by_alias=True, exclude_unset=True)
    kept = given.get("requests", {})
    if not requests.keys().isdisjoint(SOURCES):
        kept = {name: value for name, value in kept.items() if name not in SOURCES}
    for name in ("options", "inputs"):
        if name in requests:
            requests[name] = kept.get(name, {}) | requests[name]
    return make_scenario(
        {"name": flags.scenario.stem, **given, "requests": kept | requests}, source=f"{flags.scenario} and the flags"
    )


def _needs_no_file(changes: Mapping[str, Any]) -> None:
    if "model" not in changes:
        raise wrong("--model", "give a scenario file, or the model and when it is to be called: -m NAME --rate 20")
    if "arrivals" not in changes:
        raise wrong("arrivals", f"give a scenario file, or one of {_spelled(ARRIVALS)}")


def settings(flags: Flags) -> dict[str, Any]:
    """The settings of the scenario itself that flags stand for."""
    plain = ("name", "model", "task", "address", "http", "tenant", "seconds", "generators", "verify", "resume", "seed")
    found = {name: getattr(flags, name) for name in plain}
    found |= {"tls": _tls(flags), "warmup_s": flags.warmup, "arrivals": _arrivals(flags)}
    found |= {"slo": flags.slo and _slo(flags.slo)}
    return _given(found)


def asked_for(flags: Flags) -> dict[str, Any]:
    """The settings of its `requests` that flags stand for."""
    plain = ("prompt", "prompts", "files", "rows", "texts", "priority")
    found = {name: getattr(flags, name) for name in plain}
    found |= {
        "prompt_tokens": _length("--prompt-tokens", flags.prompt_tokens),
        "max_tokens": _length("--max-tokens", flags.max_tokens),
        "timeout_s": flags.timeout,
        "options": {name: _value(text) for name, text in _assigned("--option", flags.options or []).items()} or None,
        "inputs": {name: _tensor(name, text) for name, text in _assigned("--input", flags.inputs or []).items()}
        or None,
    }
    return _given(found)


def _given(found: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in found.items() if value not in (None, [], {})}


def _tls(flags: Flags) -> dict[str, Any] | bool | None:
    files = {"ca": flags.tls_ca, "cert": flags.tls_cert, "key": flags.tls_key, "server_name": flags.tls_name}
    return _given(files) or flags.tls


def _arrivals(flags: Flags) -> dict[str, Any] | None:
    given = {name: value for name in ARRIVALS if (value := getattr(flags, name)) is not None}
    if len(given) > 1:
        raise wrong("arrivals", f"give one of {_spelled(ARRIVALS)}, not {_spelled(given, ' and ')}")
    read = {"ramp": _ramp, "steps": _steps}
    return {ARRIVALS[name]: read[name](value) if name in read else value for name, value in given.items()} or None


def _spelled(names: Mapping[str, Any], between: str = ", ") -> str:
    return between.join(f"--{name}" for name in names)


def _ramp(text: str) -> dict[str, float]:
    start, end = _numbers("--ramp", text, ":", "A:B, as 5:50", count=2)
    return {"from": start, "to": end}


def _steps(text: str) -> dict[str, list[float]]:
    return {"rates": _numbers("--steps", text, ",", "rates, as 5,10,20")}


def _numbers(flag: str, text: str, between: str, form: str, count: int | None = None) -> list[float]:
    try:
        numbers = [float(part) for part in text.split(between)]
    except ValueError:
        numbers = []
    if not numbers or count not in (None, len(numbers)):
        raise wrong(flag, f"{text!r} is not {form}")
    return numbers


def _length(flag: str, text: str | None) -> int | dict[str, float] | None:
    """Tokens: a number, or mean and standard deviation."""
    if text is None:
        return None
    if re.fullmatch(r"\d+", text):
        return int(text)
    mean, stdev = _numbers(flag, text, ":", "a number of tokens, or MEAN:STDEV as 120:40", count=2)
    return {"mean": mean, "stdev": stdev}


def _slo(text: str) -> str | dict[str, float]:
    """A preset's name as it is; else the limits."""
    if "=" not in text:
        return text
    limits = _assigned("--slo", text.split(","))
    return {name: _numbers(f"--slo {name}", value, ",", "a number", count=1)[0] for name, value in limits.items()}


def _value(text: str) -> Any:
    """JSON; what is none is a text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _tensor(name: str, text: str) -> Any:
    """The name of a .npy file, nested lists, or {"shape": […]}."""
    file = text.removeprefix("@")
    if file != text:
        return file
    try:
        return json.loads(text)
    except ValueError as error:
        raise wrong(f"--input {name}", f"{text!r} is not JSON; @FILE names a .npy file") from error


def _assigned(flag: str, texts: Sequence[str] | None) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise wrong(flag, f"{text!r} must be NAME=VALUE")
        if name in pairs:
            raise wrong(flag, f"{name} is there twice")
        pairs[name] = value
    return pairs
