"""Clients that other languages generate from protos/, built as examples/clients/README.md says, over real processes."""

import asyncio
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from millrace import AsyncClient
from tests.stub_models import write_stub
from tests.survival.fleet import fleet

ROOT = Path(__file__).parents[2]
DEBIAN = "/usr/share/gocode/src/google.golang.org/grpc"
TOOLS = {
    "node": ("node", "npm"),
    "cpp": ("cmake", "c++", "protoc", "grpc_cpp_plugin"),
    "go": ("go", "protoc", "protoc-gen-go", "protoc-gen-go-grpc", DEBIAN),
}
COMMANDS = {
    "node": ("node", "build/clients/node/generate.js"),
    "cpp": ("build/clients/cpp/generate",),
    "go": ("build/clients/go/generate",),
}
TOKENS, STEP_MS, SESSION_S = 200, 20, 60


async def build(language: str) -> None:
    missing = [tool for tool in TOOLS[language] if not (shutil.which(tool) or Path(tool).is_dir())]
    if missing:
        pytest.skip(f"no {', '.join(missing)} on this machine: examples/clients/README.md names the packages")
    make = await asyncio.create_subprocess_exec("make", "-s", "-C", ROOT / "examples" / "clients", language)
    assert await make.wait() == 0


@asynccontextmanager
async def started(language: str, *arguments: str) -> AsyncIterator[Process]:
    """A client, which ends with the block at the latest."""
    client = await asyncio.create_subprocess_exec(*COMMANDS[language], *arguments, stdout=PIPE, stderr=PIPE, cwd=ROOT)
    try:
        async with asyncio.timeout(SESSION_S):
            yield client
    finally:
        if client.returncode is None:
            client.kill()
            await client.wait()


async def words(client: Process, number: int) -> str:
    """So many more of the stub's words: each is a token, and a space."""
    assert client.stdout is not None
    return "".join([(await client.stdout.readuntil(b" ")).decode() for _ in range(number)])


@pytest.mark.timeout(300)  # A first build of the one in C++ takes a minute.
@pytest.mark.parametrize("language", COMMANDS)
async def test_a_generated_client_goes_on_when_its_frontends_die(language: str, tmp_path: Path) -> None:
    await build(language)
    write_stub(tmp_path, step_ms=STEP_MS)
    async with fleet(tmp_path, frontends=2, workers=1) as running, AsyncClient(*running.addresses) as ours:
        asked = (",".join(running.addresses), "stub", "x", str(TOKENS), f"from-{language}")
        async with started(language, *asked) as client:
            text = await words(client, 30)
            await running.replace(running.frontends[0])
            text += await words(client, 30)
            await asyncio.to_thread(running.frontends[1].stop)
            rest, said = await client.communicate()
        text += rest.decode()
        assert len(text.split()) == TOKENS
        results = [delta.text async for delta in ours.watch(f"from-{language}")]
        assert text == "".join(results)
        summary = f"from-{language}: STATE_SUCCEEDED, results: {len(results)}, attempts: 1\n"
        assert (client.returncode, said.decode()) == (0, summary)

        async with started(language, asked[0], "nothing", "x") as refused:
            _, said = await refused.communicate()
        assert (refused.returncode, "there is no model nothing" in said.decode()) == (1, True)
