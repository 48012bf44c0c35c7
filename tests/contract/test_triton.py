"""Triton's client, unchanged, against a whole fleet of real processes."""

import asyncio
import json
import shutil
import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto

from tests.graphs import VOCABULARY, embedding, identity, write_graph
from tests.survival.fleet import fleet

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "models" / "digits"
CALLS_S = 60


async def test_tritonclient_infers_and_reads_our_errors(tmp_path: Path) -> None:
    shutil.copytree(DIGITS, tmp_path / "digits")
    write_graph(tmp_path, "texts", identity(TensorProto.STRING))
    write_graph(tmp_path, "half", identity(TensorProto.FLOAT16))
    write_graph(tmp_path, "embedding", embedding())
    async with fleet(tmp_path, frontends=1, workers=1) as running:
        command = (sys.executable, "-m", "tests.contract.triton_calls", running.addresses[0], DIGITS / "held_out.npz")
        process = await asyncio.create_subprocess_exec(*map(str, command), stdout=asyncio.subprocess.PIPE, cwd=ROOT)
        async with asyncio.timeout(CALLS_S):
            output, _ = await process.communicate()
    assert process.returncode == 0
    seen = json.loads(output)
    assert (seen["live"], seen["ready"], seen["models_ready"], seen["server"]) == (
        True,
        True,
        [True, False],
        "millrace",
    )
    assert seen["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "1", "8", "8"]}]
    assert seen["id"] == "17"
    assert seen["labels"] == np.load(DIGITS / "held_out.npz")["label"][:32].tolist()
    assert (seen["probabilities"], seen["only"], seen["ids"]) == ([32, 10], ["label"], ["a", "b"])
    assert [len(row) for row in seen["best"]] == [2] * 32
    assert [int(row[0].split(":")[1]) for row in seen["best"]] == seen["labels"]
    assert (seen["texts"], seen["half"]) == (True, [[0.5, 65504.0]])
    assert seen["unknown_model"] == ["StatusCode.NOT_FOUND", "there is no model nothing"]
    for fault, words in (
        ("wrong_dtype", "x takes FP32, not FP64"),
        ("wrong_shape", "x takes [-1, 1, 8, 8], not [32, 8, 8]"),
        ("wrong_name", "there is no 'q'; the model has x"),
    ):
        status, message = seen[fault]
        assert status == "StatusCode.INVALID_ARGUMENT"
        assert words in message
    assert seen["index"] == dict.fromkeys(("digits", "embedding", "half", "texts"), "READY")
    assert (seen["unloaded"], seen["is_ready"], seen["loaded"], seen["is_ready_again"]) == (
        "UNAVAILABLE",
        False,
        "READY",
        True,
    )
    assert (seen["max_batch_size"], seen["success"]) == (64, "4")
    assert seen["load_unknown"][0] == "StatusCode.NOT_FOUND"
    assert seen["load_with_config"][0] == "StatusCode.INVALID_ARGUMENT"
    assert seen["shared_memory"][0] == "StatusCode.UNIMPLEMENTED"
    expected = [[2.0 * n, 2.0 * n + 1] if n < VOCABULARY else "StatusCode.INTERNAL" for n in range(40)]
    assert seen["embedded"] == expected
