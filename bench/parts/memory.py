"""Memory at rest: a frontend, a worker with a small model, Valkey."""

import asyncio
from dataclasses import asdict

from bench.fleet import serving
from bench.report import Figure, Part
from bench.run import Run
from bench.workloads import Workload, make_feed

NAME = "memory"
AIM_FRONTEND_MIB = 80.0
REST_S = 3.0


async def run(run: Run) -> Part:
    workload = Workload(name="echo, at rest", model="echo", size=16)
    prepared = run.prepare(workload, make_feed(workload, rows=1))
    async with serving(prepared.models, run.settings.cores) as fleet:
        await asyncio.sleep(REST_S)
        sizes = fleet.memory()
    for name, size in sizes.items():
        run.say(NAME, name, f"{size.rss:.1f} MiB resident, {size.uss:.1f} its own")
    return Part(
        name=NAME,
        title="Memory at rest, resident",
        figures=tuple(
            Figure(
                name=name,
                value=size.rss,
                unit="MiB",
                aim=AIM_FRONTEND_MIB if name == "frontend" else None,
                better="less",
            )
            for name, size in sizes.items()
        ),
        notes=tuple(f"{name}: PSS {size.pss:.1f} MiB, USS {size.uss:.1f} MiB" for name, size in sizes.items()),
        data={name: asdict(size) for name, size in sizes.items()},
    )
