"""`millrace export`: a trained model becomes a version's folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from millrace.cli.calls import errors
from millrace.exporting.order import Device, Dialect, Order, Precision

if TYPE_CHECKING:
    from millrace.exporting.parity import Parity
    from millrace.exporting.run import Published

WRONG, INTERRUPTED = 2, 130


def export(
    source: Annotated[
        str, typer.Argument(help="A folder, a file, a model's name on the hub, MODULE:FUNCTION or FILE.py:FUNCTION.")
    ],
    out: Annotated[Path, typer.Option(metavar="…/NAME/VERSION", help="The version's folder; it must not be there.")],
    kind: Annotated[
        str | None, typer.Option(help="huggingface, torch, tensorflow or sklearn; unset: as the source looks.")
    ] = None,
    precision: Annotated[Precision, typer.Option(help="How weights are stored.")] = Precision.FP32,
    dialect: Annotated[Dialect, typer.Option(help="A decoder's attention.")] = Dialect.GQA,
    device: Annotated[Device, typer.Option(help="What a decoder's graph is for.")] = Device.CPU,
    tolerance: Annotated[
        float | None,
        typer.Option(help="The most that an output may differ, over its largest value; unset: the precision's."),
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(help="Inputs to compare on: .npz by the inputs' names, or texts, one a line.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="What model.yaml says; unset: as the model is.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Names of the classes, one a line.")] = None,
    include: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Copied beside the graph, as a tokenizer.json; may be repeated."),
    ] = None,
    keys: Annotated[
        Path | None, typer.Option(metavar="FILE.yaml", help="Further keys of model.yaml: image, batching, licence, …")
    ] = None,
    trust_code: Annotated[bool, typer.Option("--trust-code", help="Run code that comes with the model.")] = False,
    trust_pickle: Annotated[bool, typer.Option("--trust-pickle", help="Read pickles, which are code.")] = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Keep what an export that fails has made.")
    ] = False,
    unchecked: Annotated[
        bool, typer.Option("--unchecked", help="Publish what cannot be compared with its original here.")
    ] = False,
    environments: Annotated[
        Path, typer.Option(envvar="MILLRACE_ENVIRONMENTS", help="Where TensorFlow is installed, apart from all else.")
    ] = Path("~/.cache/millrace/environments"),
) -> None:
    """Make a served model of a trained one: the graph, model.yaml, tokenizer, labels, sums and a card of facts.

    The graph is compared with its original on random and given inputs; one that is too far from it is not published.

    [bold]millrace export ./my-llama --out models/my-llama/1 --precision int4[/bold]
    [bold]millrace export sentence-transformers/all-MiniLM-L6-v2 --out models/minilm/1[/bold]
    [bold]millrace export train.py:network --out models/digits/2 --labels labels.txt[/bold]
    [bold]millrace export classifier.keras --out models/flowers/1 --samples some.npz[/bold]
    """
    from millrace.exporting import folder
    from millrace.exporting.run import Different
    from millrace.exporting.run import export as make
    from millrace.exporting.stages import Stages

    console = Console()
    try:
        order = Order(
            source=source,
            out=out,
            kind=kind,
            precision=precision,
            dialect=dialect,
            device=device,
            tolerance=tolerance,
            samples=samples,
            task=task,
            labels=labels,
            files=include or (),
            keys=folder.read_keys(keys) if keys else {},
            trust_code=trust_code,
            trust_pickle=trust_pickle,
            keep_failed=keep_failed,
            unchecked=unchecked,
            environments=environments.expanduser(),
        )
        published = make(order, Stages(console))
    except Different as error:
        console.print(parity_table(error.parity))
        raise _failed(error) from None
    except (ValueError, OSError) as error:
        raise _failed(error) from None
    except KeyboardInterrupt:
        errors.print("millrace: interrupted; nothing is left of it", markup=False)
        raise typer.Exit(INTERRUPTED) from None
    if published.parity.comparisons:
        console.print(parity_table(published.parity))
    if published.parity.note:
        console.print(f"Measured {published.parity.note}.")
    _tell(console, published)


def parity_table(parity: "Parity") -> Table:
    """What was compared, and how far apart it is."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("inputs")
    table.add_column("output")
    for title in ("largest difference", "of the largest value", "equal choices"):
        table.add_column(title, justify="right")
    for one in parity.comparisons:
        agreement = "" if one.agreement is None else f"{one.agreement:.1%} of {one.choices:,}"
        style = "red" if not one.relative <= parity.limits.difference else None
        table.add_row(
            escape(one.given), escape(one.output), f"{one.absolute:.1e}", f"{one.relative:.1e}", agreement, style=style
        )
    return table


def _tell(console: Console, published: "Published") -> None:
    from millrace.exporting.room import told

    checked = "a worker has loaded it" if published.accepted else "no worker here has loaded it"
    repository = published.folder.parent.parent
    console.print(
        f"[bold green]{escape(str(published.folder))}[/], {told(published.size_bytes)}; {checked}", soft_wrap=True
    )
    console.print(f"millrace up --models {escape(str(repository))}", soft_wrap=True, highlight=False)


def _failed(error: Exception) -> typer.Exit:
    notes = getattr(error, "__notes__", ())
    errors.print("; ".join([f"millrace: {error}", *notes]), markup=False, soft_wrap=True)
    return typer.Exit(WRONG)
