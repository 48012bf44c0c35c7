"""Model repositories that lie in archives of a stranger: whatever their files are called, nothing is written outside of
the cache, and what is served are plain files that the repository takes."""

import os
import random
import stat
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from services.worker import repository
from services.worker.repository.source import open_source
from tests.fuzz.folders import check_reason
from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.target import Target, must

NAMES = (
    *("tested/1/model.yaml", "tested/2/model.yaml", "tested/model.yaml", "tested/1/data/weights", "other/1/model.yaml"),
    *("../escaped", "../../escaped", "tested/../../escaped", "tested/1/../../../../escaped", "/tmp/x", "//escaped"),
    *("tested/..", "tested/1/..", "tested/1/../2/model.yaml", "..", ".", "", "/", "tested//1/model.yaml"),
    *("./tested/1/x", "tested\\1\\model.yaml", "tested/1/..\\..\\escaped", "C:\\escaped", "tested/1/a\0b"),
    *("tested/1/\n", "tested/1/\x1b[31m", "tested/1/" + "n" * 255, "tested/1/" + "n" * 256, "tested/1/" + "ü" * 200),
    *("tested/1" + "/d" * 300, "n" * 300 + "/1/x", ".marks/tested/1.json", ".lock", ".partial/tested/1/x"),
    *(".trash/x/it", "tested/.hidden/x", "tested/1/.hidden", "tested/1/model.yaml/x", "tested/1", "tested/1/"),
    *("tested/model.yaml/1", "model.yaml/1/x", "tested/1/data", "TESTED/1/model.yaml", "tested/1/ü"),
    *("tested/1/u\u0308", "-rf/1/x", "tested/1/%2e%2e/escaped", "~/escaped", "tested/1/$HOME", "tested::zip/1/x"),
    *("tested/1/a?b#c", "*/1/model.yaml"),
)
CONTENTS: Mapping[str, bytes] = {
    "stub": yaml.safe_dump({"name": "tested", "task": "text-generation", "engine": "stub"}).encode(),
    "policy": b"versions: {latest: 1}",
    "empty": b"",
    "zeros": bytes(1 << 20),
    "link": b"../../../escaped",
}
MODES = (0o644, 0o644, 0o644, stat.S_IFLNK | 0o777, stat.S_IFDIR | 0o755, stat.S_IFIFO | 0o644, 0o4777, 0)


class ZipSource(Target):
    """An input is a zip file, from which a repository is copied and read, twice."""

    name, share = "zip-source", 800
    growth_bytes = 128 << 20

    def open(self, stack: ExitStack) -> None:
        self.root = Path(stack.enter_context(TemporaryDirectory()))

    @cached_property
    def known(self) -> Sequence[bytes]:
        """Each name by itself, as a file and as a link, beside a model in order; then files that lie of their sizes,
        nothing, and a name that is no UTF-8 though the archive says so."""
        model = {"name": NAMES[0], "content": "stub"}
        plans: list[Sequence[Mapping[str, Any]]] = [
            [model],
            [model, {"name": NAMES[2], "content": "policy"}, {"name": NAMES[3], "content": "zeros"}],
            [],
        ]
        plans += [
            [model, {"name": name, "content": "link", "mode": mode}] for name in NAMES for mode in (MODES[0], MODES[3])
        ]
        no_text = archive([model, {"name": "ü/1/x", "content": "stub"}]).replace("ü".encode(), b"\xbc\xbc")
        return [*(archive(plan) for plan in plans), *_lies(archive(plans[1])), b"", b"PK\5\6" + bytes(18), no_text]

    def mutant(self, dice: random.Random) -> bytes:
        plan: list[Mapping[str, Any]] = [{"name": NAMES[0], "content": "stub"}] * dice.choice((0, 1, 1, 1, 2))
        for _ in range(dice.randint(1, 5)):
            name = dice.choice(NAMES) if dice.random() < 0.7 else f"{dice.choice(NAMES)}/{dice.choice(NAMES)}"
            content, mode = dice.choice(list(CONTENTS)), dice.choice(MODES)
            plan.append({"name": name, "content": content, "mode": mode, "packed": dice.random() < 0.5})
        dice.shuffle(plan)
        data = archive(plan)
        return mutate_bytes(dice, data, data) if dice.random() < 0.4 else data

    def run(self, data: bytes) -> bool:
        """Whether anything is served."""
        with TemporaryDirectory(dir=self.root) as folder:
            (Path(folder) / "models.zip").write_bytes(data)
            source = open_source(f"zip://::file://{folder}/models.zip", Path(folder) / "cache")
            served = [_read(source) for _ in range(2)]
            around = [os.listdir(path) for path in (self.root, Path(folder) / "cache")]
            must(around == [[Path(folder).name], [source.folder.name]], f"{around} lie around the cache")
            must({*os.listdir(folder)} == {"models.zip", "cache"}, "something lies beside the cache")
            must(served[0] == served[1], f"{served[0]} at first, and then {served[1]}")
            return bool(served[0])


def _read(source: Any) -> list[str]:
    """The versions that the repository takes."""
    try:
        refused = source.refresh()
    except OSError as error:
        check_reason(str(error))
        return []
    for one in refused:
        check_reason(one.reason)
        must(one.path.is_relative_to(source.folder), f"{one.path} lies elsewhere")
    for path in source.folder.rglob("*"):
        must(stat.S_IFMT(path.lstat().st_mode) in (stat.S_IFREG, stat.S_IFDIR), f"{path} is neither file nor folder")
    models, broken = repository.scan(source.folder)
    for one in broken:
        check_reason(one.reason)
    return [f"{model.name}/{model.version}/{model.digest}" for model in models]


def archive(plan: Sequence[Mapping[str, Any]]) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as target, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a name that is there twice
        for entry in plan:
            about = zipfile.ZipInfo("x")
            about.filename = entry["name"]  # as it is: the constructor makes a better one of it
            about.external_attr = entry.get("mode", 0o644) << 16
            about.compress_type = zipfile.ZIP_DEFLATED if entry.get("packed", True) else zipfile.ZIP_STORED
            target.writestr(about, CONTENTS[entry["content"]])
    return file.getvalue()


def _lies(data: bytes) -> Iterator[bytes]:
    """Other sizes in the directory than the files have."""
    entry = data.rindex(b"PK\1\2")
    for at in (20, 24):
        for size in (0, 1, 1 << 19, 1 << 21, (1 << 32) - 2, (1 << 32) - 1):
            yield data[: entry + at] + struct.pack("<I", size) + data[entry + at + 4 :]
