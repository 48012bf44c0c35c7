"""What KServe's own Python client does and sees, in its environment. Prints one JSON object.

build/contract/kserve/bin/python tests/contract/peer_kserve.py ADDRESS DIGITS.npz
"""

import asyncio
import json
import sys
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest  # type: ignore[import-not-found]
from kserve.protocol.infer_type import RequestedOutput  # type: ignore[import-not-found]


def as_input(name: str, array: Any, datatype: str, *, raw: bool = True) -> Any:
    """The array as raw bytes, or as typed contents."""
    tensor = InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array, binary_data=raw)
    return tensor


def request(model: str, tensor: Any, *outputs: str, **parameters: Any) -> Any:
    wanted = [RequestedOutput(output) for output in outputs]
    return InferRequest(model, [tensor], request_id="17", parameters=parameters or None, request_outputs=wanted)


async def status(call: Any) -> list[str]:
    """The status of a call that must fail, and what it says."""
    try:
        await call
    except grpc.RpcError as error:
        return [error.code().name, str(error.details())]
    raise AssertionError("the call was accepted")


async def calls(address: str, images: Any) -> dict[str, Any]:
    texts = np.array([["naïve", "and a second"]], object)
    async with InferenceGRPCClient(address) as client:
        whole = await client.infer(request("digits", as_input("x", images, "FP32")))
        typed = await client.infer(request("digits", as_input("x", images[:2], "FP32", raw=False), "label"))
        named = await client.infer(request("digits", as_input("x", images[:1], "FP32"), millrace_job_id="kserve-1"))
        told = await client.infer(request("texts", as_input("x", texts, "BYTES")))
        half = await client.infer(request("half", as_input("x", np.array([[0.5, 65504]], np.float16), "FP16")))
        return {
            "live": await client.is_server_live(),
            "ready": await client.is_server_ready(),
            "models_ready": [await client.is_model_ready(model) for model in ("digits", "nothing")],
            "id": whole.id,
            "labels": whole.get_output_by_name("label").as_numpy().tolist(),
            "outputs": [output.name for output in typed.outputs],
            "typed": typed.get_output_by_name("label").as_numpy().tolist(),
            "named": named.get_output_by_name("label").as_numpy().tolist(),
            "texts": [text.decode() for text in told.outputs[0].as_numpy().flatten().tolist()],
            "half": half.outputs[0].as_numpy().tolist(),
            "unknown_model": await status(client.infer(request("nothing", as_input("x", images, "FP32")))),
            "wrong_dtype": await status(client.infer(request("digits", as_input("x", images.astype(float), "FP64")))),
        }


def main() -> None:
    address, digits = sys.argv[1:]
    print(json.dumps(asyncio.run(calls(address, np.load(digits)["x"].astype(np.float32)[:32]))))


if __name__ == "__main__":
    main()
