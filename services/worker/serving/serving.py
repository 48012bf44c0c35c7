"""Brings what is served to what is wanted: commands and changed files → load, reload, unload.

One task for each model that is not as it should be: it loads what is missing, one engine at a time on the whole worker,
and then unloads what is not wanted any more, so that there is a version to go to before one goes.
"""

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import structlog

from millrace.errors import Unavailable
from millrace.queue import Carried, Command, Commands, Indexed, ModelEntry, ModelVersion, Verb
from millrace.queue.commands import ALL
from services.worker.repository.model import Model
from services.worker.serving.contents import Contents
from services.worker.serving.lifecycle import Lifecycle
from services.worker.serving.standing import standing
from services.worker.serving.targets import is_wanted, targets

LOOK_S = 0.25
"""How often new commands are looked for."""
RETRY_S = 0.1
EVERYTHING = ("*",)
log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is wanted where no command says otherwise."""

    repository: str
    load: tuple[str, ...]
    """Names, or patterns."""
    poll_s: float
    """0: the repository is read again only when a command says so."""


class Serving:
    """`tasks` is where models are brought about."""

    def __init__(
        self, plan: Plan, contents: Contents, life: Lifecycle, commands: Commands, tasks: asyncio.TaskGroup
    ) -> None:
        self._plan, self._contents, self._life, self._commands, self._tasks = plan, contents, life, commands, tasks
        self._given: dict[str, Command] = {}
        """The last command about each model; one that Redis has lost holds on."""
        self._carried: dict[str, Carried] = {}
        self._settling: dict[str, asyncio.Task[None]] = {}
        """By model's name."""
        self._unreadable = ""
        """Why the repository could not be read when it was last looked at."""
        self._looked_at = time.monotonic()

    @property
    def entries(self) -> list[ModelEntry]:
        """What it is ready for."""
        return [served.entry for model, served in self._life.served.items() if model not in self._life.changing]

    @property
    def carried(self) -> tuple[Carried, ...]:
        return tuple(self._carried.values())

    @property
    def index(self) -> tuple[Indexed, ...]:
        """How each version stands, by name."""
        names = sorted(self._contents.names | self._served_names())
        return tuple(one for name in names for one in standing(name, self._contents, self._life, self._why_idle(name)))

    def _why_idle(self, name: str) -> str:
        if self._is_wanted(name):
            return "left out by the version policy"
        return "unloaded" if name in self._given else "not loaded"

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────────────

    async def begin(self) -> None:
        """Reads the repository and loads what is wanted of it. Raises OSError where it cannot be read, and LookupError
        where all of it is to be served, and nothing can be."""
        self._given = await self._read_commands()
        await self._contents.read()
        for name in self._plan.load:
            if not any(fnmatchcase(known, name) for known in self._contents.names):
                log.warning("model.missing", load=name)
        self._settle(self._contents.names | self._given.keys())
        while self._settling:
            await asyncio.wait(self._settling.values())
        wanted = any(map(self._is_wanted, self._contents.names or {ALL}))
        if self._plan.load == EVERYTHING and wanted and not self._life.served:
            raise LookupError("no model of the repository can be served")

    async def run(self) -> None:
        """Carries out commands, and looks at the files where it is told to, until it is cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self._look()

    def stop(self) -> None:
        """Leaves everything as it is."""
        for task in self._settling.values():
            task.cancel()

    async def _look(self) -> None:
        try:
            commands = await self._commands.read(self._plan.repository)
        except Unavailable:
            return
        news = {name for name, command in commands.items() if self._given.get(name) != command}
        due = 0 < self._plan.poll_s <= time.monotonic() - self._looked_at
        if news or due:
            await self._read(steady=not news)
            self._given |= commands
            self._life.forgive(news)
            self._settle(news | self._contents.names | self._served_names() if due or ALL in news else news)

    async def _read(self, *, steady: bool) -> None:
        try:
            await self._contents.read(steady=steady)
            self._unreadable = ""
        except OSError as error:
            self._unreadable = f"the repository cannot be read: {error}"
            log.warning("repository.unreadable", error=str(error))
        self._looked_at = time.monotonic()
        self._life.forgive_others(self._contents.digests)

    async def _read_commands(self) -> dict[str, Command]:
        while True:
            try:
                return await self._commands.read(self._plan.repository)
            except Unavailable:
                await asyncio.sleep(RETRY_S)

    # ── one model ────────────────────────────────────────────────────────────────────────────────────────────────

    def _settle(self, names: set[str]) -> None:
        """A model that is being settled already takes in what has changed before it is done."""
        for name in sorted(names - self._settling.keys()):
            self._settling[name] = self._tasks.create_task(self._bring_about(name))

    async def _bring_about(self, name: str) -> None:
        """Changes one thing after the other until the model is as it should be."""
        try:
            while (change := self._next_change(name)) is not None:
                await change
                self._settle(self._life.forgive_starved())
            if (command := self._given.get(name)) is not None:
                failure = self._shortfall(name) if command.verb is Verb.LOAD else ""
                self._carried[name] = Carried(name=name, serial=command.serial, failure=failure)
        finally:
            del self._settling[name]

    def _next_change(self, name: str) -> Coroutine[Any, Any, None] | None:
        """The highest version first."""
        wanted, served = self._targets(name), self._life.served_of(name)
        for version, model in reversed(wanted.items()):
            if version not in served or served[version].digest != model.digest:
                return self._life.load(model, partial(self._is_target, model))
        going = [version for version in served if version not in wanted]
        return self._unload(name, going) if going else None

    async def _unload(self, name: str, versions: list[str]) -> None:
        """All of them at a time: each waits for its last jobs."""
        async with asyncio.TaskGroup() as tasks:
            for version in versions:
                again = partial(self._is_version_wanted, name, version)
                tasks.create_task(self._life.unload(ModelVersion(name, version), again))

    def _is_target(self, model: Model) -> bool:
        target = self._targets(model.name).get(model.version)
        return target is not None and target.digest == model.digest

    def _is_version_wanted(self, name: str, version: str) -> bool:
        return version in self._targets(name)

    def _is_wanted(self, name: str) -> bool:
        return is_wanted(name, self._given.get(name), self._plan.load)

    def _targets(self, name: str) -> dict[str, Model]:
        if not self._is_wanted(name):
            return {}
        return targets(
            self._contents.models(name),
            self._contents.policy(name),
            broken=self._contents.broken(name),
            failed=self._life.failed_of(name),
            served=self._life.served_of(name),
        )

    def _shortfall(self, name: str) -> str:
        """Why a model is not served as it was commanded; empty where it is."""
        if self._unreadable:
            return self._unreadable
        meant = self._contents.policy(name).specific
        problems = {v: reason for v, reason in self._contents.broken(name).items() if meant is None or v in meant}
        problems |= {version: failure.reason for version, failure in self._life.failed_of(name).items()}
        if problems:
            return "; ".join(f"{name}/{version}: {reason}" for version, reason in sorted(problems.items()))
        if not self._contents.models(name):
            return f"there is no model {name} in the repository"
        return "" if self._life.served_of(name) else "its version policy chooses none of its versions"

    def _served_names(self) -> set[str]:
        return {model.name for model in self._life.served}
