"""`make demo`: a fleet on this machine, several completions and many images at once, and a worker that is killed.

1  millrace up: an embedded Valkey, one frontend, two workers
2  stream several prompts at once; print tokens per second and time to first token
3  classify the digits that were held out of the training, a request for each; print the accuracy
4  kill -9 the worker that holds a stream; the stream goes on where it stopped
5  stop; exit 0
"""

import argparse
import asyncio
import os
import re
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.columns import Columns
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from millrace import AsyncClient, Delta

MODEL = "pycode"
PROMPTS = (
    "import os\n\ndef walk(path):\n",
    "class Stack:\n    def __init__(self):\n",
    "for i in range(",
    "def read_json(path):\n    with open(path) as f:\n",
    "try:\n    import json\nexcept ImportError:\n",
    "if __name__ == '__main__':\n",
)
DIGITS, HELD_OUT, LEAST_ACCURACY = "digits", Path("models/digits/held_out.npz"), 0.98
SHOWN = 8
SHADES = " ░▒▓█"
MAX_TOKENS = 96
LONG_TOKENS = 700
KILL_AFTER_TOKENS = 150
START_S = 120
REMOTE_FONT = re.compile(r"@font-face \{.*?\}", re.DOTALL)
console = Console(highlight=False, record=True)


@dataclass(kw_only=True)
class Stream:
    """What one client saw of one completion."""

    prompt: str
    began: float = field(default_factory=time.monotonic)
    arrivals: list[float] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    tokens: int = 0
    text: str = ""

    def add(self, delta: Delta) -> None:
        self.arrivals.append(time.monotonic())
        self.offsets.append(delta.offset)
        self.tokens += len(delta.token_ids)
        self.text += delta.text

    @property
    def first_ms(self) -> float:
        return 1000 * (self.arrivals[0] - self.began)

    @property
    def rate(self) -> float:
        return self.tokens / (self.arrivals[-1] - self.began)

    @property
    def longest_gap_s(self) -> float:
        return max((later - earlier for earlier, later in pairwise(self.arrivals)), default=0)

    @property
    def is_whole(self) -> bool:
        return self.offsets == list(range(1, len(self.offsets) + 1))


@asynccontextmanager
async def fleet(models: Path = Path("models")) -> AsyncIterator[str]:
    """Runs `millrace up` and gives its gRPC address; afterwards it must end with status 0."""
    command = ("-m", "millrace.cli", "up", "--workers", "2", "--grpc-port", "0", "--http-port", "0", "--models")
    process = await asyncio.create_subprocess_exec(sys.executable, *command, models, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(START_S):
            line = (await process.stdout.readline()).decode()
        if not line.startswith("millrace ready "):
            raise RuntimeError("millrace up did not become ready; its messages above say why")
        console.print(line.strip())
        yield line.split("grpc=")[1].split()[0].split(",")[0]
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        status = await process.wait()
    console.print(f"millrace up ended with status {status}")
    if status != 0:
        raise RuntimeError("the fleet did not stop cleanly")


async def several_at_once(client: AsyncClient) -> None:
    console.print(Rule(f"{len(PROMPTS)} prompts at once"))
    began = time.monotonic()
    streams = await asyncio.gather(*(complete(client, prompt) for prompt in PROMPTS))
    seconds = time.monotonic() - began
    table = Table("prompt", "tokens", "first token", "tokens/s")
    for stream in streams:
        console.print(Text(stream.prompt, style="bold").append(shorten(stream.text), style="not bold cyan"))
        console.print(Rule(style="dim"))
        first_line = stream.prompt.strip().splitlines()[0]
        table.add_row(Text(first_line), str(stream.tokens), f"{stream.first_ms:.0f} ms", f"{stream.rate:.0f}")
    console.print(table)
    tokens = sum(stream.tokens for stream in streams)
    console.print(f"together {tokens} tokens in {seconds:.2f} s: [bold]{tokens / seconds:.0f} tokens/s[/bold]")


async def complete(client: AsyncClient, prompt: str) -> Stream:
    stream = Stream(prompt=prompt)
    async for delta in client.generate(MODEL, prompt, max_tokens=MAX_TOKENS, temperature=0.7, seed=7):
        stream.add(delta)
    return stream


async def classify(client: AsyncClient) -> None:
    with np.load(HELD_OUT) as held_out:
        images, labels = held_out["x"].astype(np.float32), held_out["label"]
    console.print(Rule(f"{len(images)} digits that the model has never seen, a request for each"))
    began = time.monotonic()
    answers = await asyncio.gather(*(client.infer(DIGITS, {"x": image[np.newaxis]}) for image in images))
    seconds = time.monotonic() - began
    found = np.concatenate([answer["label"] for answer in answers])
    console.print(
        Columns(
            [Text(f"{draw(image[0])}\n{label:^16}") for image, label in zip(images[:SHOWN], found[:SHOWN], strict=True)]
        )
    )
    accuracy = float(np.mean(found == labels))
    console.print(
        f"{np.sum(found == labels)} of {len(labels)} right: [bold]accuracy {accuracy:.2%}[/bold]; "
        f"{len(images)} requests in {seconds:.2f} s: {len(images) / seconds:.0f} a second"
    )
    if accuracy < LEAST_ACCURACY:
        raise RuntimeError(f"the accuracy is below {LEAST_ACCURACY:.0%}")


def draw(image: npt.NDArray[np.float32]) -> str:
    """An image of 0 to 16 as lines of text, a pixel two characters wide."""
    steps = (image / 16 * (len(SHADES) - 1)).round().astype(int)
    return "\n".join("".join(2 * SHADES[step] for step in row) for row in steps)


async def survive_a_kill(client: AsyncClient) -> None:
    console.print(Rule("a worker is killed in mid-stream"))
    await until_idle(client)
    stream, killed = Stream(prompt=PROMPTS[0]), False
    async for delta in client.generate(
        MODEL, stream.prompt, max_tokens=LONG_TOKENS, temperature=0.8, seed=3, ignore_eos=True
    ):
        stream.add(delta)
        if not killed and stream.tokens >= KILL_AFTER_TOKENS:
            killed, name = True, await kill_the_busy_worker(client)
            console.print(Text(stream.prompt, style="bold").append("…" + stream.text[-300:], style="not bold cyan"))
            console.print(f"[bold red]── kill -9 {name} after {stream.tokens} tokens ──[/bold red]")
            resumed_at = len(stream.text)
    console.print(Text(stream.text[resumed_at : resumed_at + 300] + "…", style="green"))
    console.print(
        f"{stream.tokens} tokens in {len(stream.offsets)} results, offsets without gap or repeat: {stream.is_whole}; "
        f"longest pause {stream.longest_gap_s:.2f} s"
    )
    if not stream.is_whole or stream.tokens != LONG_TOKENS:
        raise RuntimeError("the stream did not survive")


async def kill_the_busy_worker(client: AsyncClient) -> str:
    """Kills the process that runs the job; a worker's id is HOST-PID-RANDOM."""
    async with asyncio.timeout(10):
        while True:
            busy = [worker.worker_id for worker in await client.workers() if worker.running_jobs]
            if busy:
                os.kill(int(busy[0].rsplit("-", 2)[1]), signal.SIGKILL)
                return busy[0]
            await asyncio.sleep(0.05)


async def until_idle(client: AsyncClient) -> None:
    async with asyncio.timeout(10):
        while True:
            if not any(worker.running_jobs for worker in await client.workers()):
                return
            await asyncio.sleep(0.1)


def shorten(text: str, lines: int = 6) -> str:
    """The first lines of a text, with an ellipsis where there are more."""
    kept = text.splitlines()
    return "\n".join(kept[:lines]) + ("\n…" if len(kept) > lines else "")


async def main() -> None:
    console.print("starting one frontend, two workers and a Valkey …")
    async with fleet() as address, AsyncClient(address) as client:
        await several_at_once(client)
        await classify(client)
        console.export_text(clear=True)
        await survive_a_kill(client)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--svg", metavar="FILE", help="write what the kill looked like as a picture")
    options = parser.parse_args()
    asyncio.run(main())
    if options.svg:
        picture = console.export_svg(title="make demo: kill -9 of the worker that holds the stream")
        Path(options.svg).write_text(REMOTE_FONT.sub("", picture))
