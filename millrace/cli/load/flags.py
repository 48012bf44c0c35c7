"""The flags that `millrace load` and `millrace load sweep` have in common."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Concatenate, Literal, ParamSpec

import typer

from millrace.cli.spread import spread

P = ParamSpec("P")
WHEN, WHAT, WHERE = "When requests are due: one of these", "What is asked for", "Where, and how it is measured"


def option(*names: str, panel: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, show_default=False, **settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """As they were given; None where one was not."""

    scenario: Annotated[
        Path | None, typer.Argument(metavar="SCENARIO", help="A YAML file. Flags win over what it says.")
    ] = None
    rate: Annotated[float | None, option("--rate", panel=WHEN, help="Poisson arrivals, so many a second.")] = None
    constant: Annotated[
        float | None, option("--constant", panel=WHEN, help="So many a second, at equal distances.")
    ] = None
    callers: Annotated[
        int | None, option("--callers", panel=WHEN, help="A closed loop: each calls again when it is answered.")
    ] = None
    ramp: Annotated[
        str | None, option("--ramp", panel=WHEN, metavar="A:B", help="Poisson arrivals, from one rate to another.")
    ] = None
    steps: Annotated[
        str | None, option("--steps", panel=WHEN, metavar="A,B,…", help="Poisson arrivals, one rate after the other.")
    ] = None
    trace: Annotated[
        Path | None,
        option("--trace", panel=WHEN, metavar="FILE", help="CSV or JSON lines: arrival_s, prompt_tokens, …"),
    ] = None
    model: Annotated[str | None, option("--model", "-m", panel=WHAT, help="The model's name.")] = None
    task: Annotated[
        Literal["generate", "infer", "embed", "classify", "transcribe"] | None,
        option("--task", panel=WHAT, help="Unset: by the model's task."),
    ] = None
    prompt: Annotated[str | None, option("--prompt", "-p", panel=WHAT, help="One text for all.")] = None
    prompts: Annotated[
        Path | None, option("--prompts", panel=WHAT, metavar="FILE", help="A text a line, taken in turn.")
    ] = None
    prompt_tokens: Annotated[
        str | None,
        option("--prompt-tokens", panel=WHAT, metavar="N|MEAN:STDEV", help="Random token ids, so many."),
    ] = None
    max_tokens: Annotated[
        str | None, option("--max-tokens", panel=WHAT, metavar="N|MEAN:STDEV", help="Longest completion, in tokens.")
    ] = None
    options: Annotated[
        list[str] | None,
        option("--option", panel=WHAT, metavar="NAME=VALUE", help="As temperature=0 or ignore_eos=true."),
    ] = None
    files: Annotated[
        list[Path] | None, option("--file", panel=WHAT, metavar="FILE", help="Images or sounds, taken in turn.")
    ] = None
    inputs: Annotated[
        list[str] | None,
        option("--input", "-i", panel=WHAT, metavar="NAME=@FILE|JSON", help="A tensor: .npy, lists or a shape."),
    ] = None
    rows: Annotated[int | None, option("--rows", panel=WHAT, help="Rows in each request's tensors.")] = None
    texts: Annotated[int | None, option("--texts", panel=WHAT, help="Texts to embed in each request.")] = None
    priority: Annotated[
        Literal["batch", "standard", "interactive"] | None, option("--priority", panel=WHAT, help="Unset: standard.")
    ] = None
    timeout: Annotated[
        float | None, option("--timeout", panel=WHAT, metavar="SECONDS", help="Each request's deadline.")
    ] = None
    address: Annotated[
        str | None,
        option(
            "--address", panel=WHERE, metavar="HOST:PORT[,…]", envvar="MILLRACE_ADDRESS", help="Unset: 127.0.0.1:8001."
        ),
    ] = None
    http: Annotated[
        str | None,
        option("--http", panel=WHERE, metavar="HOST:PORT[,…]", help="Their /metrics. Unset: each port + 1; '': none."),
    ] = None
    tenant: Annotated[
        str | None, option("--tenant", panel=WHERE, envvar="MILLRACE_TENANT", help="On whose behalf.")
    ] = None
    tls: Annotated[
        bool | None, option("--tls", panel=WHERE, envvar="MILLRACE_CLIENT_TLS", help="Call by TLS; these imply it.")
    ] = None
    tls_ca: Annotated[
        Path | None,
        option("--tls-ca", panel=WHERE, metavar="FILE", envvar="MILLRACE_CLIENT_TLS_CA", help="Authorities, PEM."),
    ] = None
    tls_cert: Annotated[
        Path | None,
        option("--tls-cert", panel=WHERE, metavar="FILE", envvar="MILLRACE_CLIENT_TLS_CERT", help="To show, PEM."),
    ] = None
    tls_key: Annotated[
        Path | None,
        option("--tls-key", panel=WHERE, metavar="FILE", envvar="MILLRACE_CLIENT_TLS_KEY", help="Its key, PEM."),
    ] = None
    tls_name: Annotated[
        str | None,
        option("--tls-name", panel=WHERE, envvar="MILLRACE_CLIENT_TLS_NAME", help="In the frontends' certificates."),
    ] = None
    seconds: Annotated[float | None, option("--seconds", panel=WHERE, help="How long to measure. Unset: 30.")] = None
    warmup: Annotated[
        float | None, option("--warmup", panel=WHERE, metavar="SECONDS", help="Left out, before them. Unset: 5.")
    ] = None
    generators: Annotated[
        int | None, option("--generators", panel=WHERE, help="Processes that call. Unset: one for two cores.")
    ] = None
    slo: Annotated[
        str | None,
        option("--slo", panel=WHERE, metavar="NAME|LIMITS", help="interactive, server, or ttft_ms=500,tpot_ms=30."),
    ] = None
    verify: Annotated[
        bool | None,
        option("--verify/--no-verify", panel=WHERE, help="Look for lost, repeated, reordered or altered deltas."),
    ] = None
    resume: Annotated[
        bool | None, option("--resume/--no-resume", panel=WHERE, help="Streams survive the loss of a frontend.")
    ] = None
    seed: Annotated[int | None, option("--seed", panel=WHERE, help="Of arrivals, lengths and token ids.")] = None
    name: Annotated[str | None, option("--name", panel=WHERE, help="What the report calls it.")] = None


def flagged(command: Callable[Concatenate[Flags, P], None]) -> Callable[..., None]:
    """The command with each of the flags before its own."""
    return spread(Flags, command)
