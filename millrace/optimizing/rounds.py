"""Candidates made, judged and measured: one process at a time, the candidates in turn, round after round, so that what
else the machine does meets all of them alike."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from millrace.exporting.stages import Stages
from millrace.optimizing import graphs
from millrace.optimizing.candidate import Candidate
from millrace.optimizing.measuring import process
from millrace.optimizing.measuring.job import Content, Job, Judgement, Made, Measures, Refusal
from millrace.optimizing.order import Order
from millrace.optimizing.version import Version

Kind = Literal["make", "judge", "measure"]
Run = Callable[[Job], Content]
Judge = Callable[[Candidate, Judgement], Content]


def examine(
    order: Order,
    version: Version,
    scratch: Path,
    stages: Stages,
    run: Run = process.run,
    judge: Judge | None = None,
) -> list[Candidate]:
    """The original, then a candidate for each method, whether it came to anything or not. `judge` finds the metric by
    the data, which then are nothing that the graph takes; None: the process that compares the outputs finds it. Raises
    ValueError where the original itself cannot be run."""
    original = Candidate(method=None, graph=version.graph, size_bytes=graphs.size(version.graph))
    candidates = [original, *_folders(order, version, scratch)]

    def ask(one: Candidate, kind: Kind) -> None:
        if one.refusal:
            return
        stages.say(f"{kind} {one.name}")
        answer = run(_job(order, version, scratch, one, kind, order.data if judge is None else order.calibration))
        if judge is not None and isinstance(answer, Judgement):
            answer = judge(one, answer)
        if one is original and isinstance(answer, Refusal):
            raise ValueError(f"the original: {answer.words}")
        _note(one, answer)

    plan: list[tuple[str, Kind, list[Candidate]]] = [
        ("the original", "judge", [original]),
        ("candidates", "make", candidates[1:]),
        ("outputs and metric", "judge", candidates[1:]),
        ("speed and memory", "measure", list(_turns(candidates, order.rounds))),
    ]
    for title, kind, turns in plan:
        with stages.stage(title, total=len(turns)):
            for one in turns:
                ask(one, kind)
                stages.advance()
    return candidates


def _turns(candidates: list[Candidate], rounds: int) -> Iterator[Candidate]:
    """Each round begins with another one."""
    for number in range(rounds):
        start = number % len(candidates)
        yield from candidates[start:] + candidates[:start]


def _folders(order: Order, version: Version, scratch: Path) -> Iterator[Candidate]:
    for method in dict.fromkeys(order.methods):
        folder = scratch / method.value
        folder.mkdir(parents=True)
        shared = version.decoder is None and version.graph.resolve() in version.others()
        name = f"{version.graph.stem}.{method.value}.onnx" if shared else version.graph.name
        yield Candidate(method=method, graph=folder / name)


def _job(order: Order, version: Version, scratch: Path, one: Candidate, kind: Kind, data: Path | None) -> Job:
    return Job(
        kind=kind,
        folder=str(version.folder),
        device=version.device,
        graph=str(one.graph),
        method=one.method,
        data=None if data is None else str(data.absolute()),
        calibration=None if order.calibration is None else str(order.calibration.absolute()),
        calibrate=order.calibrate,
        reference=str(scratch / "reference"),
        seconds=order.seconds,
        threads=order.threads,
    )


def _note(one: Candidate, answer: Content) -> None:
    match answer:
        case Refusal(words=words):
            one.refusal = words
        case Made(size_bytes=size):
            one.size_bytes = size
        case Judgement():
            one.judgement = answer
        case Measures():
            one.rounds.append(answer)
