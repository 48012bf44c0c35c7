"""Clients that this project did not write, unchanged, against fleets of real processes: `make contract`.

Each is skipped where its environment is not there. tritonclient has a test of its own, which needs none.
"""

import asyncio
import json
import os
import re
import shutil
import signal
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from tests.contract.peers import environment, is_there, program
from tests.graphs import identity, write_graph
from tests.survival.fleet import Fleet, fleet

ROOT = Path(__file__).parents[2]
DIGITS, PYCODE = ROOT / "models" / "digits", ROOT / "models" / "pycode"
ROWS, RUN_S = 32, 100
REQUESTS, TOKENS = 12, 16
INFERENCES = 400
"""Enough that most of them come behind the question for what was done before."""
TEMPLATE = "{% for message in messages %}{{ message.content }}{% endfor %}"
"""Of chats: what was said, and nothing else."""


def needs(*names: str) -> pytest.MarkDecorator:
    missing = [name for name in names if not is_there(name)]
    return pytest.mark.skipif(bool(missing), reason=f"no build/contract/{{{','.join(missing)}}}: see `make contract`")


async def run(*command: str | Path, cwd: Path = ROOT, variables: Mapping[str, str] | None = None) -> str:
    """What a client prints. It has to end well, and in time; none of its children outlives it."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        cwd=cwd,
        env=environment() | dict(variables or {}),
        stdout=PIPE,
        stderr=STDOUT,
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(RUN_S):
            output, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    text = output.decode()
    assert process.returncode == 0, text
    return text


@asynccontextmanager
async def tensors(folder: Path) -> AsyncIterator[Fleet]:
    shutil.copytree(DIGITS, folder / "digits")
    write_graph(folder, "texts", identity(TensorProto.STRING, ("batch", "width")))
    write_graph(folder, "half", identity(TensorProto.FLOAT16))
    async with fleet(folder, frontends=1, workers=1) as running:
        yield running


@asynccontextmanager
async def texts(folder: Path) -> AsyncIterator[tuple[Fleet, Path]]:
    """A fleet that serves pycode over OpenAI's HTTP too, and a folder as Hugging Face's tokenizers want it."""
    shutil.copytree(PYCODE, folder / "models" / "pycode")
    settings = folder / "models" / "pycode" / "1" / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": TEMPLATE}))
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(settings.with_name(name), tokenizer)
    async with fleet(folder / "models", frontends=1, workers=1, MILLRACE_OPENAI="true") as running:
        yield running, tokenizer


async def ask(environment_name: str, peer: str, address: str) -> dict[str, Any]:
    """What a script of ours, in another's environment, has seen: the JSON in its last line."""
    script, digits = Path(__file__).with_name(peer), DIGITS / "held_out.npz"
    output = await run(program(environment_name, "python"), script, address, digits)
    seen: dict[str, Any] = json.loads(output.splitlines()[-1])
    return seen


def labels() -> list[int]:
    found: list[int] = np.load(DIGITS / "held_out.npz")["label"][:ROWS].tolist()
    return found


@needs("kserve")
async def test_kserves_client_infers_and_reads_our_errors(tmp_path: Path) -> None:
    async with tensors(tmp_path) as running:
        seen = await ask("kserve", "peer_kserve.py", running.addresses[0])
    assert (seen["live"], seen["ready"], seen["models_ready"], seen["id"]) == (True, True, [True, False], "17")
    assert (seen["labels"], seen["typed"], seen["named"]) == (labels(), labels()[:2], labels()[:1])
    assert (seen["outputs"], seen["texts"], seen["half"]) == (["label"], ["naïve", "and a second"], [[0.5, 65504.0]])
    assert seen["unknown_model"] == ["NOT_FOUND", "there is no model nothing"]
    assert seen["wrong_dtype"][0] == "INVALID_ARGUMENT"
    assert "x takes FP32, not FP64" in seen["wrong_dtype"][1]


@needs("tools")
async def test_mlservers_codecs_and_stubs_infer_and_read_our_errors(tmp_path: Path) -> None:
    async with tensors(tmp_path) as running:
        seen = await ask("tools", "peer_mlserver.py", running.addresses[0])
    assert (seen["live"], seen["ready"], seen["models_ready"], seen["id"]) == (True, True, [True, False], "17")
    assert [(one["name"], one["datatype"], one["shape"]) for one in seen["metadata"]] == [("x", "FP32", [-1, 1, 8, 8])]
    assert (seen["typed"], seen["raw"], seen["outputs"]) == (labels(), labels(), ["label"])
    assert seen["texts"] == ["naïve", "and a second"]
    assert seen["unknown_model"] == ["NOT_FOUND", "there is no model nothing"]
    assert seen["wrong_shape"][0] == "INVALID_ARGUMENT"
    assert "x takes [-1, 1, 8, 8], not [1, 8, 8]" in seen["wrong_shape"][1]


@needs("perf")
@pytest.mark.parametrize("options", [(), ("-b", "4"), ("--streaming",), ("--async", "--streaming", "-b", "2")])
async def test_perf_analyzer_measures_a_model_of_tensors(options: tuple[str, ...], tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    async with tensors(tmp_path / "models") as running:
        load = ("--input-data", "zero", "--concurrency-range", "4", "--request-count", str(INFERENCES))
        where = ("-m", "digits", "-i", "grpc", "-u", running.addresses[0], "--profile-export-file", report)
        said = await run(program("perf", "perf_analyzer"), *where, *load, *options)
    (experiment,) = json.loads(report.read_text())["experiments"]
    (counted,) = re.findall(r"Successful request count: (\d+)", said)
    assert INFERENCES / 2 < int(counted) <= INFERENCES  # By the server.
    assert len(experiment["requests"]) == INFERENCES
    assert all(len(request["response_timestamps"]) == 1 for request in experiment["requests"])


@needs("perf")
async def test_perf_analyzer_sends_texts_as_tensors(tmp_path: Path) -> None:
    async with tensors(tmp_path) as running:
        load = ("--string-data", "naïve", "--shape", "x:3", "--request-count", str(INFERENCES))
        where = ("-m", "texts", "-i", "grpc", "-u", running.addresses[0])
        assert "Throughput" in await run(program("perf", "perf_analyzer"), *where, *load)


@needs("perf", "tools")
async def test_genai_perf_measures_a_generation_over_grpc(tmp_path: Path) -> None:
    async with texts(tmp_path) as (running, tokenizer):
        model = ("-m", "pycode", "-u", running.addresses[0], "--tokenizer", tokenizer)
        kind = ("--endpoint-type", "kserve", "--backend", "vllm", "--streaming")
        prompts = ("--num-prompts", "4", "--synthetic-input-tokens-mean", "20", "--output-tokens-mean", str(TOKENS))
        load = ("--request-count", str(REQUESTS), "--concurrency", "2", "--artifact-dir", tmp_path / "report")
        offline = {"HF_HUB_OFFLINE": "1"}
        said = await run(
            program("tools", "genai-perf"), "profile", *model, *kind, *prompts, *load, cwd=tmp_path, variables=offline
        )
    (found,) = (tmp_path / "report").rglob("profile_export_genai_perf.json")
    report = json.loads(found.read_text())
    assert report["request_count"]["avg"] == REQUESTS, said
    assert 0 < report["time_to_first_token"]["avg"] < report["request_latency"]["avg"]
    assert 1 < report["output_sequence_length"]["avg"] <= TOKENS + 1


@needs("tools")
@pytest.mark.parametrize("kind", ["completions", "chat"])
async def test_aiperf_measures_a_generation_over_openais_http(kind: str, tmp_path: Path) -> None:
    async with texts(tmp_path) as (running, tokenizer):
        url = f"http://{running.frontends[0].ready['http']}"
        model = ("-m", "pycode", "-u", url, "--tokenizer", tokenizer, "--endpoint-type", kind, "--streaming")
        prompts = ("--synthetic-input-tokens-mean", "20", "--output-tokens-mean", str(TOKENS))
        load = ("--request-count", str(REQUESTS), "--concurrency", "2", "--ui", "none")
        said = await run(
            program("tools", "aiperf"),
            "profile",
            *model,
            *prompts,
            *load,
            "--output-artifact-dir",
            tmp_path / "report",
            cwd=tmp_path,
        )
    report = json.loads((tmp_path / "report" / "profile_export_aiperf.json").read_text())
    assert report["request_count"]["avg"] == REQUESTS, said
    assert not report["error_summary"]
    assert 0 < report["time_to_first_token"]["avg"] < report["request_latency"]["avg"]
    assert 1 < report["usage_completion_tokens"]["avg"] <= TOKENS
