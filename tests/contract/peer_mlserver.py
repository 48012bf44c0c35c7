"""What MLServer's own codecs and stubs make of the service, in their environment. Prints one JSON object.

MLServer's stream is not the Open Inference Protocol's: it answers ModelInferResponse where Triton and Millrace answer
ModelStreamInferResponse. Its unary calls are the same.

    build/contract/tools/bin/python tests/contract/peer_mlserver.py ADDRESS DIGITS.npz
"""

import json
import sys
from typing import Any

import grpc
import numpy as np
from mlserver.codecs import NumpyCodec, StringCodec  # type: ignore[import-not-found]
from mlserver.grpc import converters, dataplane_pb2  # type: ignore[import-not-found]
from mlserver.grpc.dataplane_pb2_grpc import GRPCInferenceServiceStub  # type: ignore[import-not-found]
from mlserver.types import InferenceRequest, RequestOutput  # type: ignore[import-not-found]


class Client:
    def __init__(self, channel: grpc.Channel) -> None:
        self.stub = GRPCInferenceServiceStub(channel)

    def infer(self, model: str, tensor: Any, *outputs: str, raw: bool = False) -> Any:
        wanted = [RequestOutput(name=output) for output in outputs] or None
        request = InferenceRequest(id="17", inputs=[tensor], outputs=wanted)
        message = converters.ModelInferRequestConverter.from_types(request, model_name=model, use_raw=raw)
        return converters.ModelInferResponseConverter.to_types(self.stub.ModelInfer(message))

    def refused(self, model: str, tensor: Any) -> list[str]:
        try:
            self.infer(model, tensor)
        except grpc.RpcError as error:
            return [error.code().name, str(error.details())]
        raise AssertionError("the call was accepted")


def labels(answer: Any) -> Any:
    return next(NumpyCodec.decode_output(output).tolist() for output in answer.outputs if output.name == "label")


def calls(client: Client, images: Any) -> dict[str, Any]:
    tensor = NumpyCodec.encode_input("x", images)
    metadata = client.stub.ModelMetadata(dataplane_pb2.ModelMetadataRequest(name="digits"))
    typed, raw = client.infer("digits", tensor), client.infer("digits", tensor.model_copy(deep=True), "label", raw=True)
    texts = client.infer("texts", StringCodec.encode_input("x", ["naïve", "and a second"]), raw=True)
    return {
        "live": client.stub.ServerLive(dataplane_pb2.ServerLiveRequest()).live,
        "ready": client.stub.ServerReady(dataplane_pb2.ServerReadyRequest()).ready,
        "models_ready": [
            client.stub.ModelReady(dataplane_pb2.ModelReadyRequest(name=name)).ready for name in ("digits", "nothing")
        ],
        "metadata": converters.ModelMetadataResponseConverter.to_types(metadata).model_dump()["inputs"],
        "id": typed.id,
        "typed": labels(typed),
        "raw": labels(raw),
        "outputs": [output.name for output in raw.outputs],
        "texts": StringCodec.decode_output(texts.outputs[0]),
        "unknown_model": client.refused("nothing", tensor),
        "wrong_shape": client.refused("digits", NumpyCodec.encode_input("x", images[0])),
    }


def main() -> None:
    address, digits = sys.argv[1:]
    with grpc.insecure_channel(address) as channel:
        print(json.dumps(calls(Client(channel), np.load(digits)["x"].astype(np.float32)[:32])))


if __name__ == "__main__":
    main()
