"""How many texts differ from an undisturbed run when all workers die under them, for prefill and for replay, and why.

The same jobs, half of them greedy and half drawn with a seed, run four times on two workers: undisturbed; undisturbed
in another order, which is the control; and with `kill -9` of both workers in the midst of each wave of jobs, once with
each `continuation` of model.yaml. That with a real model, and with one whose best two tokens are always nearly equal.
What differs behind a prefill is drawn once more in process; what replay costs is measured there too.
"""

import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import yaml

from services.worker import repository
from services.worker.repository import Model
from tests.chaos.continued_jobs import WORKERS, Job, Ran, divergence, run_jobs
from tests.chaos.divergence import Nearness, Reason, nearness, reasons
from tests.chaos.experiment import Outcome, Scale, percentile
from tests.chaos.replay_cost import waits
from tests.models import TinyLlama
from tests.survival.fleet import Fleet, fleet
from tests.worker.generation.twins import write_twins

PYCODE = Path(__file__).parents[2] / "models" / "pycode" / "1"
TWINS = TinyLlama(
    layers=6,
    hidden=256,
    heads=4,
    head_size=64,
    intermediate=704,
    graph_context_length=1024,
    context_length=1024,
    slots=64,
    prefill_chunk_tokens=128,
    step_tokens=128,
)
"""Of pycode's shape, but for the vocabulary."""
CONTINUATIONS = ("prefill", "replay")
MODELS = ("pycode", "twins")
LOOKED_AT = 16
"""Unchanged greedy jobs, whose choices are compared one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One model: the undisturbed run, the others by name, and why texts differ behind a prefill, or do not."""

    model: str
    calm: Sequence[Ran]
    others: Mapping[str, Sequence[Ran]]
    broken: Sequence[str]
    """What the checker found."""
    reasons: Sequence[Reason] = ()
    near: Nearness | None = None

    def differing(self, name: str) -> list[tuple[Ran, Ran]]:
        """The jobs whose text is another one than in the undisturbed run."""
        pairs = zip(self.calm, self.others[name], strict=True)
        return [pair for pair in pairs if pair[0].token_ids != pair[1].token_ids]

    def continued(self, name: str) -> int:
        return sum(bool(ran.taken_at) for ran in self.others[name])


async def run(scale: Scale) -> Outcome:
    tokens, kills = scale.of(128, 192), scale.of(1, 2)
    jobs = [Job(number=number, tokens=tokens) for number in range(scale.of(60, 500))]
    with TemporaryDirectory() as name:
        models = _write_models(Path(name))
        async with fleet(Path(name), frontends=1, workers=WORKERS) as running:
            ran = [await _compare(running, model, jobs, kills, scale.seed) for model in MODELS]
        all_compared = [_explained(models[one.model], one) for one in ran]
        costs = dict(_costs(models["pycode"], scale))
    return Outcome(
        done=f"{len(jobs)} jobs of {tokens} tokens, half greedy, half with a seed, of each of {len(MODELS)} models on "
        f"{WORKERS} workers, all of which were killed {kills} times in each wave",
        counts={name: count for one in all_compared for name, count in _counts(one)},
        figures={name: figure for one in all_compared for name, figure in _figures(one)} | costs,
        failures=tuple(failure for one in all_compared for failure in _failures(one)),
    )


def _write_models(folder: Path) -> dict[str, Model]:
    """Each model once for each continuation; answers those that prefill."""
    for continuation in CONTINUATIONS:
        name = f"pycode-{continuation}"
        copy = shutil.copytree(PYCODE, folder / name / "1")
        file = yaml.safe_load((copy / "model.yaml").read_text())
        (copy / "model.yaml").write_text(yaml.safe_dump(file | {"name": name, "continuation": continuation}))
        write_twins(folder, f"twins-{continuation}", TWINS, continuation=continuation)
    models, broken = repository.scan(folder)
    assert not broken
    return {name: next(model for model in models if model.name == f"{name}-prefill") for name in MODELS}


async def _compare(running: Fleet, model: str, jobs: Sequence[Job], kills: int, seed: int) -> Compared:
    shuffled = random.Random(seed).sample(jobs, len(jobs))
    calm, found = await run_jobs(running, f"{model}-prefill", "calm", jobs, kills=0)
    control, more = await run_jobs(running, f"{model}-replay", "control", shuffled, kills=0)
    others = {"control": control}
    found += more
    for continuation in CONTINUATIONS:
        ran, more = await run_jobs(running, f"{model}-{continuation}", continuation, jobs, kills=kills)
        others[continuation] = ran
        found += more
    broken = [f"{model}: {one.job}: {one.kind}, {one.detail}" for one in found]
    return Compared(model=model, calm=calm, others=others, broken=broken)


def _explained(model: Model, compared: Compared) -> Compared:
    differing = compared.differing("prefill")
    found = [divergence(calm, other) for calm, other in differing]
    changed = {other.job for _, other in differing}
    same = [
        ran for ran in compared.others["prefill"] if ran.taken_at and not ran.job.sampled and ran.job not in changed
    ]
    works = [ran.work(ran.taken_at[-1]) for ran in same[:LOOKED_AT]]
    return replace(
        compared,
        reasons=reasons(model, [one for one in found if one is not None]),
        near=nearness(model, works) if works else None,
    )


def _counts(one: Compared) -> Iterator[tuple[str, int]]:
    yield f"{one.model} jobs lost, repeated or reordered", len(one.broken)
    for name in CONTINUATIONS:
        yield f"{one.model} continued, {name}", one.continued(name)
    for name in one.others:
        yield f"{one.model} texts differ, {name}", len(one.differing(name))
    yield f"{one.model} explained", sum(reason.explains for reason in one.reasons)


def _figures(one: Compared) -> Iterator[tuple[str, str]]:
    for kind, is_greedy in (("greedy", True), ("seeded", False)):
        those = [reason for reason in one.reasons if reason.divergence.is_greedy == is_greedy]
        unit = "logits" if is_greedy else "probability"
        if those:
            margins, moved = [reason.margin for reason in those], [reason.moved for reason in those]
            yield (
                f"{one.model} {kind}: {len(those)} differ",
                f"by margins of {median(margins):.1e} in the median, {max(margins):.1e} at most, in {unit}; "
                f"prefill may move them by {median(moved):.1e}",
            )
    if one.near is not None:
        yield (
            f"{one.model} greedy choices that stayed",
            f"{one.near.choices:,}, by margins of {one.near.margin:.1e} at least; "
            f"prefill moved logits by {one.near.moved:.1e} at most",
        )
    for name in CONTINUATIONS:
        stalls = [ran.transcript.stall_s for ran in one.others[name]]
        yield f"{one.model} stall, {name}", f"p50 {percentile(stalls, 0.5):.1f} s, p99 {percentile(stalls, 0.99):.1f} s"


def _failures(one: Compared) -> Iterator[str]:
    yield from one.broken
    for name in ("control", "replay"):
        if differing := one.differing(name):
            yield f"{one.model}: {len(differing)} texts differ, {name}"
    silent = len(one.differing("prefill")) - sum(reason.explains for reason in one.reasons)
    if silent:
        yield f"{one.model}: {silent} texts differ behind a prefill, and nothing explains it"
    for name in CONTINUATIONS:
        if one.continued(name) < len(one.calm) // 2:
            yield f"{one.model}: {one.continued(name)} jobs were continued with {name}: too few were tried"
    for ran in (*one.calm, *(ran for others in one.others.values() for ran in others)):
        if len(ran.token_ids) != ran.job.tokens:
            yield f"{one.model}: {ran.transcript.job_id} has {len(ran.token_ids)} tokens"
    if one.model == "twins" and not one.differing("prefill"):
        yield "twins: prefill changed no text, so that replay had nothing to do better"


def _costs(model: Model, scale: Scale) -> Iterator[tuple[str, str]]:
    logged, jobs = ((64, 256, 512), (1, 32)) if scale.long else ((64, 256), (1, 16))
    for continuation in CONTINUATIONS:
        all_waits = list(waits(model, continuation, jobs, logged))
        for count in jobs:
            seconds = [f"{wait.middle_s:.3f}" for wait in all_waits if wait.jobs == count]
            last = [f"{wait.last_s:.3f}" for wait in all_waits if wait.jobs == count]
            yield (
                f"first new token of {count} behind {' / '.join(map(str, logged))} logged, {continuation}",
                f"{' / '.join(seconds)} s" + (f", the last {' / '.join(last)} s" if count > 1 else ""),
            )
