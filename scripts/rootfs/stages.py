"""Carries out the stages that a target needs, each in a copy of its base."""

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from scripts.rootfs import sandbox
from scripts.rootfs.dockerfile import Stage, Step, parse, substitute

BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    root: Path
    environment: Mapping[str, str] = field(default_factory=lambda: {"PATH": BASE_PATH})
    arguments: Mapping[str, str] = field(default_factory=dict)
    """What ARG gave; known to this stage alone."""
    folder: str = "/"
    user: str = "0"
    entrypoint: tuple[str, ...] = ()

    @property
    def uid(self) -> int:
        return int(self.user.partition(":")[0])


class Stages:
    """A Dockerfile's stages, made in `scratch` as they are asked for."""

    def __init__(self, dockerfile: Path, *, source: Path, files: list[Path], base: Path, wheels: Path, scratch: Path):
        """`files`: the context's, relative to `source`. `base` stands in for each image that is not a stage."""
        self._stages = {stage.name: stage for stage in parse(dockerfile.read_text())}
        self._source, self._files = source, files
        self._base, self._wheels, self._scratch = base, wheels, scratch
        self._made: dict[str, Image] = {}

    @property
    def default(self) -> str:
        """The last stage, which an engine makes where no target is named."""
        return list(self._stages)[-1]

    def make(self, name: str) -> Image:
        """Raises ValueError for what is not known, CalledProcessError where a step fails."""
        if name not in self._made:
            stage = self._stages[name]
            image = self._begin(stage)
            for step in stage.steps:
                print(f"  {name}: {step.instruction} {step.text[:90]}", flush=True)
                image = self._carry_out(step, image)
            self._made[name] = replace(image, arguments={})
        return self._made[name]

    def _begin(self, stage: Stage) -> Image:
        image = self.make(stage.base) if stage.base in self._stages else Image(root=self._base)
        root = self._scratch / stage.name
        shutil.rmtree(root, ignore_errors=True)
        root.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--reflink=auto", image.root, root], check=True)
        return replace(image, root=root)

    def _carry_out(self, step: Step, image: Image) -> Image:
        match step.instruction:
            case "RUN":
                values = {**image.environment, **image.arguments}
                sandbox.build(image.root, ["/bin/sh", "-c", step.text], values, image.folder, self._wheels)
                return image
            case "COPY":
                self._copy(step, image)
                return image
            case "ARG":
                name, _, default = step.text.partition("=")
                return replace(image, arguments={**image.arguments, name: default})
            case "ENV":
                return replace(image, environment={**image.environment, **_pairs(step, image)})
            case "WORKDIR":
                (image.root / step.text.lstrip("/")).mkdir(parents=True, exist_ok=True)
                return replace(image, folder=step.text)
            case "USER":
                return replace(image, user=step.text)
            case "ENTRYPOINT":
                return replace(image, entrypoint=tuple(step.items))
            case _:
                return image

    def _copy(self, step: Step, image: Image) -> None:
        """Raises ValueError where nothing is copied, or for an option that is not known here."""
        options = [word for word in step.words if word.startswith("--")]
        *sources, destination = [word for word in step.words if not word.startswith("--")]
        target = image.root / str(Path(image.folder, destination)).lstrip("/")
        match options:
            case []:
                for source in sources:
                    self._copy_context(step, Path(source), target, is_folder=destination.endswith("/"))
            case [origin] if origin.startswith("--from="):
                for source in sources:
                    other = self.make(origin.removeprefix("--from=")).root
                    target.mkdir(parents=True, exist_ok=True)
                    subprocess.run(["cp", "-a", f"{other}{source}/.", target], check=True)
            case _:
                raise ValueError(f"line {step.line}: COPY {step.text}: only --from=STAGE is known here")

    def _copy_context(self, step: Step, source: Path, target: Path, *, is_folder: bool) -> None:
        """A file goes by its own name into a folder; of a folder goes what is in it."""
        found = [file for file in self._files if file == source or file.is_relative_to(source)]
        if not found:
            raise ValueError(f"line {step.line}: {source} is not in the context")
        for file in found:
            within = file.relative_to(source) if file != source else Path(file.name if is_folder else "")
            (target / within).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self._source / file, target / within)


def _pairs(step: Step, image: Image) -> dict[str, str]:
    """The NAME=VALUE words of an ENV."""
    values = {**image.environment, **image.arguments}
    pairs = (word.partition("=") for word in step.words)
    return {name: substitute(value, values) for name, _, value in pairs}
