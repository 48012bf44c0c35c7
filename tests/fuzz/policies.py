"""Which versions of a model are served: a model's policy, read by the real repository."""

import random
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from services.worker import repository
from tests.fuzz.folders import check_reason
from tests.fuzz.target import Target, must
from tests.fuzz.texts import VALUES, mutate_yaml
from tests.stub_models import write_stub

VERSIONS = ("1", "2", "10", "007", "beta", "9" * 64)
POLICY = "model.yaml"
POLICIES = (
    *("", "versions: {all: true}", "versions: {latest: 2}", "versions: {specific: [1, beta]}", "versions: {latest: 1}"),
    *("versions:\n  specific:\n    - '1'\n    - 10\n    - '007'\n", "versions: {specific: ['1', '1', 1]}"),
)
ODD_POLICIES = (
    *("null", "[]", "7", "more: 1", "versions: null", "versions: {}", "versions: {all: false}", "versions: 1"),
    *("versions: {latest: 0}", "versions: {latest: true}", "versions: {latest: 1.0}", "versions: {latest: 9999999999}"),
    *("versions: {all: true, latest: 1}", "versions: {specific: []}", "versions: {specific: [../1]}"),
    *("versions: {specific: [1.0, 0x1, 1e0, 2001-01-01, null, true]}", "versions: {specific: [007, 0o7]}"),
    *("versions: {specific: [" + "1, " * 10_000 + "1]}", "versions: {specific: [" + "9" * 5_000 + "]}"),
    *("versions: {specific: ['1\n']}", "versions: {specific: ['']}", "versions: {all: true}\nversions: {latest: 1}"),
)


class Policy(Target):
    """NAME/model.yaml."""

    name, share = "policy", 1_500

    def open(self, stack: ExitStack) -> None:
        self.folder = Path(stack.enter_context(TemporaryDirectory()))
        for version in VERSIONS:
            write_stub(self.folder, name="tested", version=version)
        self.known_models = repository.scan(self.folder)[0]

    @cached_property
    def known(self) -> Sequence[bytes]:
        values = (f"versions: {{{key}: {value}}}" for key in ("all", "latest", "specific") for value in VALUES)
        return [text.encode() for text in (*POLICIES, *ODD_POLICIES, *values)]

    def mutant(self, dice: random.Random) -> bytes:
        return mutate_yaml(dice, [text.encode() for text in POLICIES[1:]])

    def run(self, data: bytes) -> bool:
        """Whether the policy is obeyed: where it is not in order no version is served."""
        (self.folder / "tested" / POLICY).write_bytes(data)
        models, broken = repository.scan(self.folder, known=self.known_models)
        for one in broken:
            check_reason(one.reason)
        if not models:
            must(len(broken) == len(VERSIONS), f"{len(broken)} of {len(VERSIONS)} versions are broken")
            return False
        must({model.version for model in models} == {*VERSIONS}, "a version is lost")
        must(
            len({one.path for one in broken} | {model.folder for model in models}) == len(models) + len(broken), "twice"
        )
        chosen = [model.version for model in models if model.chosen]
        must(chosen == [version for version in _wanted(data) if version in VERSIONS], f"{chosen} are chosen")
        return True


def _wanted(data: bytes) -> list[str]:
    """Read once more, of a policy that was taken, in the order of the versions."""
    read = (yaml.safe_load(data) or {}).get("versions", {"all": True})
    numbers = sorted((version for version in VERSIONS if version.isdigit() and len(version) < 19), key=int)
    ordered = [*numbers, *sorted({*VERSIONS} - {*numbers})]
    if "specific" in read:
        return [version for version in ordered if version in map(str, read["specific"])]
    return numbers[-int(read["latest"]) :] if "latest" in read else ordered
