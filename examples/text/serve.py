"""Each version through the service, held against its graph alone."""

from pathlib import Path
from typing import Any

from examples.serving import evaluated
from examples.text import evaluate
from examples.text.evaluate import Graph
from millrace.evaluating.result import Result

LARGEST_DIFFERENCE = 1e-4
"""Of a measure, as a share of it."""


def versions(first: Path) -> list[Path]:
    """The folders of a model's versions."""
    return [folder for folder in (first, first.with_name("2")) if folder.exists()]


def decoder(first: Path, data: Path, words: Any, texts: list[str], out: Path, threads: int) -> list[dict[str, Any]]:
    """Perplexity and bits per byte of all versions on the `texts` that are in the file `data`; pages go to `out`.

    Raises RuntimeError where the service's are others than those of the graph alone."""
    folders, served = versions(first), []
    results = evaluated(first.parents[1], first.parent.name, [folder.name for folder in folders], data, out)
    for folder in folders:
        alone = evaluate.of_texts(Graph(folder, threads), words, texts)
        found = {"perplexity": alone.perplexity, "bits_per_byte": alone.bits_per_byte}
        served.append({"version": folder.name, "alone": found, "served": same(found, results[folder.name].result)})
    return served


def same(alone: dict[str, float], result: Result) -> dict[str, float]:
    """The service's measures of these names. Raises RuntimeError where one is not the same."""
    found = {}
    for name, value in alone.items():
        measure = result.system.measure(name)
        found[name] = float("nan") if measure is None else measure.value
        if not abs(found[name] - value) <= LARGEST_DIFFERENCE * abs(value):
            title = f"{result.system.title}: {name}"
            raise RuntimeError(f"{title} is {found[name]:.6f} through the service, and {value:.6f} alone")
    return found
