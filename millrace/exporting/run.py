"""The spine: an order becomes a version's folder, or an error and nothing."""

from dataclasses import dataclass
from pathlib import Path

from millrace.exporting import accepting, folder, manifest, order, room, staging
from millrace.exporting.built import Plan, Source
from millrace.exporting.order import Order
from millrace.exporting.parity import Parity
from millrace.exporting.sources import choose
from millrace.exporting.stages import Stages


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A version that is there now."""

    folder: Path
    size_bytes: int
    parity: Parity
    accepted: bool
    """Whether a worker here has loaded it; False where there is none to ask."""


class Different(ValueError):
    """The graph is too far from its original."""

    def __init__(self, parity: Parity) -> None:
        super().__init__(f"nothing is published: {parity.problem}")
        self.parity = parity


def export(wanted: Order, stages: Stages, source: Source | None = None) -> Published:
    """`source`: what the order's names, where it is in this process already.

    Raises ValueError with a sentence, `Different` among them, and leaves nothing then."""
    order.check(wanted)
    staging.sweep(wanted.repository)
    source = source or choose(wanted)
    _check_plan(wanted, source.plan(wanted))
    with staging.staging(wanted.repository, wanted.name, wanted.version, keep_failed=wanted.keep_failed) as made:
        built = source.build(wanted, made, stages)
        if built.parity.problem is not None:
            raise Different(built.parity)
        folder.include(made, wanted.files)
        folder.write(made, wanted, built)
        with stages.stage("sums of the files", manifest.size(made)):
            manifest.write(made, stages.advance)
        accepted = False
        if accepting.is_here():
            with stages.stage("the worker's own check"):
                accepted = accepting.accepted(made.parents[1], "cpu" if "cpu" in built.devices else None)
        size = manifest.size(made)
        staging.publish(made, wanted.out.absolute())
    return Published(folder=wanted.out, size_bytes=size, parity=built.parity, accepted=accepted)


def _check_plan(wanted: Order, plan: Plan) -> None:
    """Raises ValueError where the export would come to nothing."""
    if plan.unchecked and not wanted.unchecked:
        raise ValueError(f"{plan.unchecked}; --unchecked publishes it nevertheless")
    room.check_disk(wanted.repository, plan.disk_bytes)
    room.check_memory(plan.memory_bytes)
