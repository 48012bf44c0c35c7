"""What Triton's own Python client does and sees, in a process of its own: two copies of package `inference` cannot live
in one. Prints one JSON object.

    python -m tests.contract.triton_calls ADDRESS DIGITS.npz
"""

import asyncio
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException


def as_input(name: str, array: Any, datatype: str, kind: Any = triton.InferInput) -> Any:
    tensor = kind(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def refused(call: Callable[[], Any]) -> list[str]:
    """The status and the message of a call that must fail."""
    try:
        call()
    except InferenceServerException as error:
        return [str(error.status()), str(error.message())]
    raise AssertionError("the call was accepted")


def sync_calls(address: str, images: Any) -> dict[str, Any]:
    client = triton.InferenceServerClient(address)
    digits = as_input("x", images, "FP32")
    whole = client.infer("digits", [digits], request_id="17")
    wanted = [triton.InferRequestedOutput("label")]
    labels = client.infer("digits", [digits], outputs=wanted, model_version="1")
    best = client.infer("digits", [digits], outputs=[triton.InferRequestedOutput("probabilities", class_count=2)])
    texts = np.array([["naïve".encode(), b"\x00 and nothing"]], object)
    named = [client.infer("digits", [digits], parameters={"millrace_job_id": "mine"}, request_id=i) for i in "ab"]
    metadata = client.get_model_metadata("digits", as_json=True)
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "models_ready": [client.is_model_ready(name) for name in ("digits", "nothing")],
        "server": client.get_server_metadata(as_json=True)["name"],
        "inputs": metadata["inputs"],
        "id": whole.get_response().id,
        "labels": whole.as_numpy("label").tolist(),
        "probabilities": list(whole.as_numpy("probabilities").shape),
        "best": [[text.decode() for text in row] for row in best.as_numpy("probabilities")],
        "only": [output.name for output in labels.get_response().outputs],
        "ids": [result.get_response().id for result in named],
        "texts": client.infer("texts", [as_input("x", texts, "BYTES")]).as_numpy("y").tolist()[0] == texts.tolist()[0],
        "half": client.infer("half", [as_input("x", np.float16([[0.5, 65504]]), "FP16")]).as_numpy("y").tolist(),
        "unknown_model": refused(lambda: client.infer("nothing", [digits])),
        "wrong_dtype": refused(lambda: client.infer("digits", [as_input("x", images.astype(np.float64), "FP64")])),
        "wrong_shape": refused(lambda: client.infer("digits", [as_input("x", images[:, 0], "FP32")])),
        "wrong_name": refused(lambda: client.infer("digits", [as_input("q", images, "FP32")])),
    }


def repository_calls(address: str) -> dict[str, Any]:
    """A model goes and comes back; each call answers when it has."""
    client = triton.InferenceServerClient(address)

    def states() -> dict[str, str]:
        return {model.name: model.state for model in client.get_model_repository_index().models}

    seen: dict[str, Any] = {"index": states()}
    client.unload_model("half")
    seen |= {"unloaded": states()["half"], "is_ready": client.is_model_ready("half")}
    client.load_model("half")
    seen |= {"loaded": states()["half"], "is_ready_again": client.is_model_ready("half")}
    config = client.get_model_config("digits", as_json=True)["config"]
    statistics = client.get_inference_statistics("digits", as_json=True)["model_stats"][0]
    seen |= {"max_batch_size": config["max_batch_size"], "success": statistics["inference_stats"]["success"]["count"]}
    seen["load_unknown"] = refused(lambda: client.load_model("nothing"))
    seen["load_with_config"] = refused(lambda: client.load_model("half", config="{}"))
    seen["shared_memory"] = refused(lambda: client.register_system_shared_memory("a", "/a", 8))
    return seen


async def async_calls(address: str) -> dict[str, Any]:
    """Many requests at once, some of which make the graph fail: the others must not suffer."""
    async with triton_aio.InferenceServerClient(address) as client:

        async def embed(number: int) -> Any:
            ids = np.full((1, 4), number, np.int64)
            try:
                answer = await client.infer("embedding", [as_input("ids", ids, "INT64", triton_aio.InferInput)])
            except InferenceServerException as error:
                return str(error.status())
            return answer.as_numpy("vectors")[0, 0].tolist()

        return {"embedded": await asyncio.gather(*(embed(number) for number in range(40)))}


def main() -> None:
    address, digits = sys.argv[1:]
    images = np.load(digits)["x"].astype(np.float32)
    seen = sync_calls(address, images[:32]) | asyncio.run(async_calls(address)) | repository_calls(address)
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
