"""What Triton's clients read of models before they call them."""

from dataclasses import replace

import grpc
import grpc.aio
import pytest

from millrace.oip.inference_pb2 import (
    ModelConfigRequest,
    ModelMetadataRequest,
    ServerMetadataRequest,
)
from millrace.oip.inference_pb2_grpc import GRPCInferenceServiceStub
from millrace.oip.model_config_pb2 import (
    TYPE_BOOL,
    TYPE_FP32,
    TYPE_INT8,
    TYPE_STRING,
    ModelConfig,
    ModelInstanceGroup,
)
from millrace.queue import ModelEntry
from services.frontend.oip.catalogue import EXTENSIONS, tensors
from tests.frontend.playing import Worker, frontend, reason
from tests.frontend.tensors import ENTRY, Inference, TensorWorker

CONFIGURED = replace(
    ENTRY,
    engine="batch",
    instances=2,
    batch_delay_ms=1.5,
    preferred_rows=(2, 4),
    digest="d" * 64,
    response_cache=True,
)


@pytest.fixture
def inference(channel: grpc.aio.Channel) -> Inference:
    return GRPCInferenceServiceStub(channel)


async def configuration(inference: Inference, name: str, version: str = "") -> ModelConfig:
    return (await inference.ModelConfig(ModelConfigRequest(name=name, version=version))).config


async def test_the_configuration_of_a_model_of_tensors(redis_url: str, inference: Inference) -> None:
    async with TensorWorker(redis_url, CONFIGURED):
        config = await configuration(inference, "double", "3")
    assert (config.name, config.platform, config.backend) == ("double", "onnxruntime_onnx", "batch")
    assert config.max_batch_size == 4
    assert [(port.name, port.data_type, list(port.dims), port.optional) for port in config.input] == [
        ("x", TYPE_FP32, [3], False),
        ("n", TYPE_INT8, [1], False),
    ]
    assert [(port.name, port.data_type, list(port.dims)) for port in config.output] == [
        ("y", TYPE_FP32, [3]),
        ("z", TYPE_STRING, []),
    ]
    assert list(config.dynamic_batching.preferred_batch_size) == [2, 4]
    assert config.dynamic_batching.max_queue_delay_microseconds == 1500
    assert (config.dynamic_batching.priority_levels, config.dynamic_batching.default_priority_level) == (3, 2)
    (group,) = config.instance_group
    assert (group.kind, group.count) == (ModelInstanceGroup.KIND_CPU, 2)
    assert list(config.version_policy.specific.versions) == [3]
    assert not config.model_transaction_policy.decoupled
    assert config.parameters["digest"].string_value == "d" * 64


async def test_a_model_without_a_batch_dimension_has_whole_shapes_and_no_batching(
    redis_url: str, inference: Inference
) -> None:
    async with TensorWorker(redis_url, replace(ENTRY, max_batch_size=0)):
        config = await configuration(inference, "double")
    assert [list(port.dims) for port in config.input] == [[-1, 3], [-1, 1]]
    assert config.WhichOneof("scheduling_choice") is None


async def test_a_model_that_generates_takes_a_text_and_is_decoupled(inference: Inference, worker: Worker) -> None:
    config = await configuration(inference, "echo")
    metadata = await inference.ModelMetadata(ModelMetadataRequest(name="echo"))
    assert (config.max_batch_size, config.model_transaction_policy.decoupled) == (0, True)
    assert config.parameters["context_length"].string_value == "512"
    ports = {port.name: (port.data_type, list(port.dims), port.optional) for port in config.input}
    assert ports["text_input"] == (TYPE_STRING, [1], False)
    assert ports["stream"] == (TYPE_BOOL, [1], True)
    assert {"exclude_input_in_output", "sampling_parameters"} <= {name for name in ports if ports[name][2]}
    assert config.output[0].name == "text_output"
    assert [port.name for port in config.input] == [tensor.name for tensor in metadata.inputs]
    assert [list(port.dims) for port in config.input] == [list(tensor.shape) for tensor in metadata.inputs]
    assert [port.name for port in config.output] == [tensor.name for tensor in metadata.outputs]


async def test_the_configuration_says_whether_this_frontend_caches(redis_url: str, inference: Inference) -> None:
    async with TensorWorker(redis_url, CONFIGURED), frontend(redis_url, response_cache_bytes=1000) as caching:
        assert not (await configuration(inference, "double")).response_cache.enable
        async with grpc.aio.insecure_channel(caching.grpc_address) as channel:
            assert (await configuration(GRPCInferenceServiceStub(channel), "double")).response_cache.enable


async def test_versions_and_instances_are_those_that_workers_are_ready_for(
    redis_url: str, inference: Inference
) -> None:
    async with TensorWorker(redis_url), TensorWorker(redis_url, replace(ENTRY, version="5")) as other:
        assert list((await configuration(inference, "double")).version_policy.specific.versions) == [3, 5]
        await other.announce("draining")
        config = await configuration(inference, "double")
        assert list(config.version_policy.specific.versions) == [3]
        assert not (await configuration(inference, "double", "5")).instance_group


async def test_what_there_is_not_has_no_configuration(inference: Inference) -> None:
    for name, version, expected in (("nothing", "", "MODEL_UNKNOWN"), ("echo", "9", "MODEL_VERSION_UNKNOWN")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await configuration(inference, name, version)
        assert (caught.value.code(), reason(caught.value)) == (grpc.StatusCode.NOT_FOUND, expected)


async def test_the_extensions_are_those_that_are_served(inference: Inference) -> None:
    metadata = await inference.ServerMetadata(ServerMetadataRequest())
    assert metadata.extensions == list(EXTENSIONS)
    assert not [name for name in metadata.extensions if "memory" in name or "sequence" in name]


def test_a_model_that_takes_texts_alone_has_the_tensors_of_its_graph() -> None:
    entry = ModelEntry(name="m", version="1", task="text-embedding", digest="", tasks=("embed",))
    assert tensors(entry) == ((), ())
