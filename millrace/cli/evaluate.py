"""`millrace evaluate`: a labelled data set through the service, its measures, and a page of them."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from millrace.cli import calls
from millrace.cli.arrays import wrong
from millrace.cli.calls import errors
from millrace.cli.options import Model
from millrace.cli.service import Service, calling
from millrace.errors import MillraceError

if TYPE_CHECKING:
    from millrace.evaluating.evaluation import Plan
    from millrace.evaluating.kinds import Kind

FOLDER = Path("build/evaluate")
USAGE, MISSED = 2, 4
WHAT, HOW, JUDGED = "What is asked", "How it is done", "When it fails a build: exit status 4"


def option(*names: str, panel: str, **settings: Any) -> Any:
    return typer.Option(*names, rich_help_panel=panel, **settings)


@calling
def evaluate(
    service: Service,
    model: Model,
    data: Annotated[
        Path,
        typer.Option("--data", "-d", metavar="FILE|FOLDER", help="JSON lines, CSV, .npz, or a folder with labels.csv."),
    ],
    model_version: Annotated[str, typer.Option("--model-version", metavar="VERSION", help="Unset: the latest.")] = "",
    against: Annotated[
        str, typer.Option("--against", metavar="[MODEL/]VERSION", help="Ask this one too, and compare them.")
    ] = "",
    task: Annotated[
        str | None,
        option(
            "--task",
            panel=WHAT,
            metavar="NAME",
            help="classify, infer, generate, perplexity, embed or transcribe; unset: by the model's task and the data.",
        ),
    ] = None,
    limit: Annotated[int | None, option("--limit", panel=WHAT, min=1, help="Only the first so many examples.")] = None,
    max_tokens: Annotated[int, option("--max-tokens", panel=WHAT, min=1, help="Of a completion.")] = 64,
    stop: Annotated[
        list[str] | None, option("--stop", panel=WHAT, help="End a completion before this text; may be repeated.")
    ] = None,
    output: Annotated[
        str, option("--output", panel=WHAT, metavar="NAME", help="Of tensors: which has the scores, or the label.")
    ] = "",
    labels: Annotated[
        Path | None, option("--labels", panel=WHAT, metavar="FILE", help="Names of the scores' columns, one a line.")
    ] = None,
    truncate: Annotated[bool, option("--truncate", panel=WHAT, help="Cut texts that are too long to embed.")] = False,
    language: Annotated[str, option("--language", panel=WHAT, metavar="TAG", help="Of sounds, as de or en-GB.")] = "",
    out: Annotated[
        Path | None, option("--out", panel=HOW, metavar="FOLDER", help="Unset: one of its own in build/evaluate.")
    ] = None,
    fresh: Annotated[
        bool, option("--fresh", panel=HOW, help="Ask everything again, whatever was answered before.")
    ] = False,
    concurrency: Annotated[
        int, option("--concurrency", panel=HOW, min=1, max=1024, help="Calls at once, at most.")
    ] = 64,
    timeout: Annotated[float, option("--timeout", panel=HOW, min=0.1, metavar="SECONDS", help="For one call.")] = 600.0,
    retry: Annotated[
        float,
        option("--retry", panel=HOW, min=1, metavar="SECONDS", help="How long a service that is away is waited for."),
    ] = 60.0,
    resamples: Annotated[int, option("--resamples", panel=HOW, min=100, max=100_000, help="Of the bootstrap.")] = 1000,
    seed: Annotated[int, option("--seed", panel=HOW, min=0, help="Of the bootstrap.")] = 0,
    as_json: Annotated[bool, option("--json", panel=HOW, help="Print the result as JSON.")] = False,
    fail_under: Annotated[
        list[str] | None,
        option("--fail-under", panel=JUDGED, metavar="MEASURE=NUMBER", help="Where it is less; may be repeated."),
    ] = None,
    fail_over: Annotated[
        list[str] | None,
        option("--fail-over", panel=JUDGED, metavar="MEASURE=NUMBER", help="Where it is more, as wer=0.1."),
    ] = None,
    fail_if_worse: Annotated[
        bool, option("--fail-if-worse", panel=JUDGED, help="Where it is worse than --against, beyond chance.")
    ] = False,
) -> None:
    """Measure how good a model is, through the service: its calls wait behind everybody else's.

    What is answered is kept: after Ctrl-C, or whatever else ends it, the same command goes on where it was.

    [bold]millrace evaluate -m digits --data models/digits/held_out.npz --fail-under accuracy=0.98[/bold]
    [bold]millrace evaluate -m sentiment --data reviews.jsonl --against 3 --fail-if-worse[/bold]
    """
    with the_extra():
        from millrace.evaluating.asking import Options
        from millrace.evaluating.evaluation import Plan

    def plan() -> "Plan":
        return Plan(
            model=model,
            version=model_version,
            against=against,
            data=data,
            kind=_kind(task),
            limit=limit,
            options=Options(
                max_tokens=max_tokens,
                stop=stop or (),
                output=output,
                labels=labels.read_text().splitlines() if labels else (),
                truncate=truncate,
                language=language,
                timeout_s=timeout,
            ),
            concurrency=concurrency,
            resamples=resamples,
            seed=seed,
        )

    bounds = {"--fail-under": fail_under or [], "--fail-over": fail_over or []}
    asked = _evaluate(service, plan, out, bounds, fresh=fresh, retry_s=retry, as_json=as_json, is_strict=fail_if_worse)
    raise typer.Exit(reported(asked))


async def _evaluate(
    service: Service,
    make_plan: "Callable[[], Plan]",
    out: Path | None,
    bounds: "Mapping[str, Sequence[str]]",
    *,
    fresh: bool,
    retry_s: float,
    as_json: bool,
    is_strict: bool,
) -> int:
    """The exit status."""
    with the_extra():
        from millrace.evaluating.evaluation import evaluate, prepare
        from millrace.evaluating.judging import bound, missed
        from millrace.evaluating.live import watching
        from millrace.evaluating.report import write_report
        from millrace.evaluating.result import write_result
        from millrace.evaluating.summary import summary
    plan = make_plan()
    if is_strict and not plan.against:
        raise wrong("--fail-if-worse", "needs --against")
    async with service.knocking() as client:
        prepared = await prepare(client, plan)
    asked = [bound(name, text, prepared.dataset.kind) for name, texts in bounds.items() for text in texts]
    folder = out or FOLDER / prepared.name
    show = partial(watching, console=errors)
    try:
        async with service.client(retry_s=retry_s) as client:
            result = await evaluate(client, prepared, folder, show, fresh=fresh)
    except (asyncio.CancelledError, MillraceError):
        errors.print(f"What was answered is kept in {folder}: the same command goes on.", markup=False, soft_wrap=True)
        raise
    write_result(result, folder / "result.json")
    write_report(result, folder / "report.html")
    if as_json:
        typer.echo(result.model_dump_json(by_alias=True))
    else:
        console = Console(highlight=False)
        console.print(summary(result))
        console.print(f"{folder / 'result.json'}\n{folder / 'report.html'}", markup=False, soft_wrap=True)
    misses = missed(result, asked, if_worse=is_strict)
    for miss in misses:
        errors.print(miss, markup=False, soft_wrap=True)
    return MISSED if misses else 0


def reported(call: Coroutine[Any, Any, int]) -> int:
    """Runs the command; answers its exit status, and prints what went wrong."""
    status = 0

    async def keep() -> None:
        nonlocal status
        status = await call

    try:
        return calls.run(keep()) or status
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        errors.print(f"{where}{error.strerror or error}", markup=False, soft_wrap=True)
    except ValueError as error:
        errors.print(str(error), markup=False, soft_wrap=True)
    return USAGE


def _kind(task: str | None) -> "Kind | None":
    from millrace.evaluating.kinds import KINDS

    found = next((kind for kind in KINDS if kind == task), None)
    if task is not None and found is None:
        raise wrong("--task", f"{task!r} is none of {', '.join(KINDS)}")
    return found


@contextmanager
def the_extra() -> Iterator[None]:
    """Where the command imports what it needs: says what to install, and exits, where something is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("millrace"):
            raise
        missing = error.name.partition(".")[0]
        errors.print(f"`millrace evaluate` needs {missing}: pip install 'millrace[evaluate]'", markup=False)
        raise typer.Exit(USAGE) from None
