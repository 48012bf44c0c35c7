"""What is shown while it runs."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from millrace.evaluating.asking import Answer, Failure, Journal, Outcome, Progress
from millrace.evaluating.data import Example
from millrace.evaluating.kinds import Kind
from millrace.evaluating.live import part, watching
from tests.evaluating.examples import TARGET, labelled, make_dataset

FAILED = Failure(code="INVALID_ARGUMENT", reason="INVALID_REQUEST", message="no")


def shown(folder: Path, *, on_terminal: bool) -> str:
    """Of four examples, of which one was answered before and one fails."""
    dataset = make_dataset(labelled("cat", "cat", "cat", "cat"))
    outcomes: list[Outcome] = [Answer(label="cat"), Answer(label="dog"), FAILED]
    console = Console(file=io.StringIO(), force_terminal=on_terminal, width=140)
    with Journal(folder / "journal.jsonl", "m") as journal:
        journal.keep("0", Answer(label="cat"))
        with watching(TARGET, dataset, journal, console=console) as watch:
            for example, outcome in zip(dataset.examples[1:], outcomes, strict=True):
                watch(Progress(example, outcome, 4, 0))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("on_terminal", [True, False])
def test_it_tells_how_far_it_is_and_the_score_so_far(on_terminal: bool, tmp_path: Path) -> None:
    text = shown(tmp_path, on_terminal=on_terminal)
    assert "animals/2: 1 of 4 were answered before" in text
    assert "accuracy 0.6667" in text
    assert "1 failed" in text
    assert ("4 at once" in text) == on_terminal


@pytest.mark.parametrize(
    ("kind", "truth", "answer", "expected"),
    [
        ("classify", "a", Answer(label="b"), (0.0, 1.0)),
        ("generate", "a", Answer(text=" a "), (1.0, 1.0)),
        ("perplexity", "", Answer(nats=3.0, tokens=2, bytes=9), (3.0, 2.0)),
        ("transcribe", "a b c", Answer(text="a c"), (1, 3)),
        ("embed", "", Answer(vector=""), (0.0, 0.0)),
    ],
)
def test_the_running_score_adds_up(kind: Kind, truth: str, answer: Answer, expected: tuple[float, float]) -> None:
    assert part(kind, Example(id="0", truth=truth), answer) == expected
