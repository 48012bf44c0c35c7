"""`millrace load`: its commands and their options. What needs the extra `load` is imported when a command runs."""

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from millrace.cli.calls import errors
from millrace.cli.load.flags import Flags, flagged, option
from millrace.cli.load.outputs import Outputs

HELP = (
    "Load a model with requests and measure what it does: a report, and the numbers as JSON.\n\n"
    "In an open loop requests are due when they are due, and latencies count from then; with --callers each waits for "
    "its answer before it asks again. Exit status: 0; 1 where the service cannot be reached or answers nothing, or "
    "--verify finds faults; 2 for wrong usage; 3 where --fail-under-slo says so; 130 after Ctrl-C.\n\n"
    "[bold]millrace load -m pycode --rate 20 --prompt-tokens 120:40 --max-tokens 64[/bold]\n"
    "[bold]millrace load scenario.yaml --seconds 60 --slo interactive --fail-under-slo[/bold]\n"
    "[bold]millrace load compare before/result.json after/result.json[/bold]\n"
    "[bold]millrace load sweep -m pycode --max-tokens 64 --slo interactive[/bold]"
)
DEFAULT, SHOWN = "run", "What is shown and left behind"


class RunsByDefault(TyperGroup):
    """Takes what is no command of its own as the arguments of `run`, whose help it shows with its own."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        own = not args or args[0] in self.commands or args[0] in self.get_help_option_names(ctx)
        return super().parse_args(ctx, args if own else [DEFAULT, *args])

    def format_help(self, ctx: Any, formatter: Any) -> None:
        shown = copy.copy(self)
        shown.params = self.commands[DEFAULT].params
        super(RunsByDefault, shown).format_help(ctx, formatter)


load_app = typer.Typer(
    cls=RunsByDefault,
    help=HELP,
    no_args_is_help=True,
    rich_markup_mode="rich",
    subcommand_metavar="| COMMAND …",
    add_completion=False,
)

Out = Annotated[
    Path | None, option("--out", "-o", panel=SHOWN, metavar="DIR|FILE.json", help="Unset: build/load/NAME-TIME.")
]
NoLive = Annotated[
    bool, option("--no-live", panel=SHOWN, help="A line each 5 seconds, as where standard error is no terminal.")
]
NoReport = Annotated[bool, option("--no-report", panel=SHOWN, help="The numbers as JSON, without the HTML report.")]
FailUnderSlo = Annotated[
    bool, option("--fail-under-slo", panel=SHOWN, help="Exit with 3 where the SLO is not met, for CI.")
]


@load_app.command(DEFAULT, short_help="Run one load test; what `millrace load` does without a command.")
@flagged
def run(
    flags: Flags,
    out: Out = None,
    no_report: NoReport = False,
    no_live: NoLive = False,
    fail_under_slo: FailUnderSlo = False,
) -> None:
    """Run one load test, and write result.json and report.html.

    [bold]millrace load -m pycode --rate 20[/bold]
    [bold]millrace load scenario.yaml --seconds 60[/bold]
    """
    with the_extra():
        from millrace.cli.load.run import run_one
    outputs = Outputs(out=out, report=not no_report, live=not no_live)
    raise typer.Exit(run_one(flags, outputs, fail_under_slo=fail_under_slo))


@load_app.command()
@flagged
def sweep(flags: Flags, out: Out = None, no_report: NoReport = False, no_live: NoLive = False) -> None:
    """Find the highest rate that meets the SLO, by runs at rates of its own choice; write sweep.json and report.html.

    `millrace plan` takes sweep.json and says how many workers a rate needs.

    [bold]millrace load sweep scenario.yaml[/bold]
    [bold]millrace load sweep -m pycode --max-tokens 64 --slo ttft_ms=500,tpot_ms=30[/bold]
    """
    with the_extra():
        from millrace.cli.load.sweep import run_sweep
    raise typer.Exit(run_sweep(flags, Outputs(out=out, report=not no_report, live=not no_live)))


@load_app.command()
def compare(
    before: Annotated[Path, typer.Argument(metavar="BEFORE.json", help="A result of `millrace load`.")],
    after: Annotated[Path, typer.Argument(metavar="AFTER.json", help="Another, of the same scenario.")],
    threshold: Annotated[
        str, typer.Option(metavar="SHARE|PERCENT", help="How much worse is a regression, as 0.05 or 5%.")
    ] = "5%",
) -> None:
    """Compare two results, with 95 % intervals. Exits with 4 where the second is worse by more than the threshold.

    [bold]millrace load compare main.json branch.json --threshold 10%[/bold]
    """
    with the_extra():
        from millrace.cli.load.compare import run_compare
    raise typer.Exit(run_compare(before, after, threshold))


@load_app.command()
def schema() -> None:
    """Print the JSON schemas of a scenario and of a result."""
    with the_extra():
        from millrace.load.result import Result
        from millrace.load.scenario import Scenario
    print(json.dumps({"scenario": Scenario.model_json_schema(), "result": Result.model_json_schema()}, indent=2))


@contextmanager
def the_extra() -> Iterator[None]:
    """Where a command imports what it needs: says what to install, and exits, where something is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("millrace"):
            raise
        missing = error.name.partition(".")[0]
        errors.print(f"`millrace load` needs {missing}: pip install 'millrace[load]'", markup=False)
        raise typer.Exit(2) from None
