"""`millrace optimize`: smaller or faster graphs of a served model, and the best as a new version."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from millrace.cli.calls import errors
from millrace.optimizing.order import Calibration, Method, Order, Prefer

if TYPE_CHECKING:
    from millrace.optimizing.run import Outcome

WRONG, NOTHING, INTERRUPTED = 2, 4, 130
LEAST_COLUMNS = 120
"""Of the table; a narrower terminal wraps its lines."""


def optimize(
    version: Annotated[Path, typer.Argument(metavar="MODELS/NAME/VERSION", help="The folder; it stays as it is.")],
    methods: Annotated[str, typer.Option(metavar="METHOD,…", help=f"Of {', '.join(Method)}.")] = ",".join(Method),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="For the metric: .npz by the inputs' names, with label; .jsonl or .csv with text and label; of a "
            "decoder a text; of images, sounds and vectors what `millrace evaluate` takes. Unset: outputs are compared "
            "on random inputs.",
        ),
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Of the same kinds, without labels: for int8-static.")
    ] = None,
    calibrate: Annotated[Calibration, typer.Option(help="How its ranges are found.")] = Calibration.MINMAX,
    max_loss: Annotated[
        float,
        typer.Option(
            min=0,
            help="Of perplexity as a share, of other metrics in points, or of an output's largest value.",
        ),
    ] = 0.005,
    prefer: Annotated[Prefer, typer.Option(help="What the best is best in.")] = Prefer.SPEED,
    out: Annotated[str | None, typer.Option(metavar="VERSION", help="The new version; unset: the next number.")] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Whose graph is replaced.")] = "cpu",
    rounds: Annotated[int, typer.Option(min=1, max=1000, help="In each of which all candidates are measured.")] = 5,
    seconds: Annotated[float, typer.Option(min=0, max=600, help="Of one candidate in one round.")] = 2.0,
    threads: Annotated[int, typer.Option(min=0, max=1024, help="Of a run; 0: as many as a worker takes.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as JSON.")] = False,
) -> None:
    """Make smaller or faster graphs of a model, measure each beside the original, and keep the best as a new version.

    Exit status: 0; 2 wrong usage; 4 where no candidate is within the loss and better than the original.

    [bold]millrace optimize models/digits/1 --data models/digits/held_out.npz --calibration some.npz[/bold]
    [bold]millrace optimize models/pycode/1 --methods int8-block,int4 --data held_out.txt --max-loss 0.01[/bold]
    [bold]millrace optimize models/spoken/1 --data spoken/labels.jsonl --calibration features.npz --prefer size[/bold]
    """
    try:
        from millrace.exporting.stages import Stages
        from millrace.optimizing.run import optimise

        order = Order(
            folder=version,
            methods=read_methods(methods),
            data=data,
            calibration=calibration,
            calibrate=calibrate,
            max_loss=max_loss,
            prefer=prefer,
            out=out,
            device=device,
            rounds=rounds,
            seconds=seconds,
            threads=threads,
        )
        outcome = optimise(order, Stages(Console(stderr=True)))
    except ModuleNotFoundError as error:
        errors.print(f"millrace: this needs {error.name}: pip install 'millrace[optimize]'", markup=False)
        raise typer.Exit(WRONG) from None
    except (ValueError, OSError) as error:
        errors.print(f"millrace: {error}", markup=False, soft_wrap=True)
        raise typer.Exit(WRONG) from None
    except KeyboardInterrupt:
        errors.print("millrace: interrupted; nothing is left of it", markup=False)
        raise typer.Exit(INTERRUPTED) from None
    show(outcome, order, as_json=as_json)
    if outcome.published is None:
        raise typer.Exit(NOTHING)


def read_methods(text: str) -> tuple[Method, ...]:
    """Raises ValueError for one that is not known."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if unknown := [name for name in names if name not in list(Method)]:
        raise ValueError(f"--methods: {unknown[0]} is none of {', '.join(Method)}")
    return tuple(map(Method, names))


def show(outcome: "Outcome", order: Order, *, as_json: bool) -> None:
    from millrace.optimizing import report

    published = None if outcome.published is None else str(outcome.published)
    if as_json:
        found = {"published": published, "candidates": report.as_json(outcome.candidates, outcome.choice)}
        typer.echo(json.dumps(found, indent=2))
        return
    console = Console(highlight=False)
    console.width = max(console.width, LEAST_COLUMNS)
    console.print(table(outcome))
    for method, verdict in outcome.choice.verdicts.items():
        console.print(f"{method.value:<12} {verdict}", markup=False, soft_wrap=True)
    if order.data is None:
        console.print("No --data: the loss is the largest difference of an output on random inputs.", soft_wrap=True)
    if published is None:
        console.print(
            f"[yellow]Nothing is published:[/] none is within {order.max_loss:.2%} and better in {order.prefer.value}."
        )
    else:
        console.print(f"[green]✓[/] {published}", soft_wrap=True)


def table(outcome: "Outcome") -> Table:
    """Without the verdicts, which are too long for one."""
    from millrace.optimizing import report

    original, *_ = outcome.candidates
    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for title in report.columns(original)[:-1]:
        made.add_column(title, justify="right" if title else "left", no_wrap=True)
    for one in outcome.candidates:
        style = "bold green" if one is outcome.choice.best else None
        made.add_row(*report.cells(one, original, outcome.choice)[:-1], style=style)
    return made
