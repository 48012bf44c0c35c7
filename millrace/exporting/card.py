"""The card of a version: README.md, the facts of its export."""

import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from millrace.exporting import graphs, manifest
from millrace.exporting.built import Built
from millrace.exporting.order import Order
from millrace.exporting.packages import versions
from millrace.exporting.parity import Parity
from millrace.exporting.room import told

MADE_BY = ("millrace", "onnx", "onnxruntime")


def text(folder: Path, order: Order, built: Built, described: Mapping[str, Any]) -> str:
    """`described`: the content of model.yaml."""
    return "\n".join(
        [
            f"# {order.name}",
            "",
            *([described["description"], ""] if described.get("description") else []),
            *_facts(folder, order, built, described),
            "",
            *_ports(folder, built),
            "## Parity",
            "",
            *_parity(built.parity),
            "",
        ]
    )


def _facts(folder: Path, order: Order, built: Built, described: Mapping[str, Any]) -> Iterator[str]:
    made = ", ".join(f"{name} {version}" for name, version in versions(*MADE_BY).items())
    facts = {
        **built.facts,
        "Task": described["task"],
        "Engine": built.engine,
        "Precision": order.precision.value,
        "Size": told(manifest.size(folder)),
        "Exported by": f"{made}, Python {platform.python_version()}",
    }
    if described.get("licence"):
        facts["Licence"] = described["licence"]
    yield from ("| | |", "|---|---|")
    yield from (f"| {name} | {_cell(value)} |" for name, value in facts.items())


def _ports(folder: Path, built: Built) -> Iterator[str]:
    """Of a graph of tensors; a decoder's are the engine's business."""
    if built.engine != "batch":
        return
    opened = graphs.session(folder / built.graph)
    yield from ("## Graph", "")
    for title, ports in (("Inputs", graphs.inputs(opened)), ("Outputs", graphs.outputs(opened))):
        yield f"- {title}: {', '.join(f'`{port.name}` ({port.told})' for port in ports)}"
    yield ""


def _parity(parity: Parity) -> Iterator[str]:
    if not parity.comparisons:
        yield f"Not measured: {parity.unchecked}."
        return
    yield (
        f"The graph in ONNX Runtime beside the original. A difference of {parity.limits.difference:g} of an output's\n"
        "largest value is the most that is published. Inputs are random where nothing else is said."
    )
    yield from (["", f"Measured {parity.note}."] if parity.note else [])
    yield ""
    yield from (
        "| inputs | output | largest difference | of the largest value | equal choices |",
        "|---|---|---:|---:|---:|",
    )
    for one in parity.comparisons:
        agreement = "" if one.agreement is None else f"{one.agreement:.1%} of {one.choices}"
        yield f"| {one.given} | {one.output} | {one.absolute:.1e} | {one.relative:.1e} | {agreement} |"


def _cell(value: str) -> str:
    return " ".join(str(value).replace("|", "\\|").split())
