"""Tensors at the worker: whatever the frontend lets through is run by the real engine on real graphs, in one batch with
requests whose answers are known."""

import random
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import numpy as np

from millrace.engine import Output
from millrace.errors import Code, MillraceError
from millrace.oip.inference_pb2 import ModelInferRequest, ModelInferResponse
from millrace.queue import ModelEntry
from millrace.tensors import pack_bytes, unpack_bytes
from services.frontend.oip.infer import parse_infer
from services.worker import repository
from services.worker.batch import BatchEngine
from tests import graphs
from tests.fuzz.mutate import mutate_message
from tests.fuzz.requests import SHAPES
from tests.fuzz.samples import BOUNDS, DTYPES, add_input
from tests.fuzz.served import SERVED, Array, Arrays, Served
from tests.fuzz.shapes import examples
from tests.fuzz.target import Target, must
from tests.worker.steps import leased

MOST_STEPS, CLASSIFICATION = 1_000, "classification"
SIZES, HUGE = (0, 0, 1, 1, 2, 3, 4, 5, 8, 16, 17, 33), (2**16, 2**20, 2**25, 2**31 - 1)
NOTHING = ((1, 0, 0), (8, 0, 1), (1, 2**16, 0), (1, 2**25, 0), (8, 2**25, 0), (1, 2**31 - 1, 0), (1, 0, 2**31 - 1))
"""Shapes of tensors without elements, some of them very long."""


class Tensors(Target):
    """An input is the name of a graph and some requests, which are run together."""

    name, share = "tensors", 14_000
    served: ClassVar[Mapping[str, Served]] = SERVED

    def open(self, stack: ExitStack) -> None:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        for name, served in self.served.items():
            graphs.write_graph(folder, name, served.graph(), **(served.batching or {"max_rows": 16}))
        models, broken = repository.scan(folder)
        assert not broken
        self.engines = {model.name: _batch_engine(model) for model in models}
        self.entries = {model.name: _entry(model, self.engines[model.name]) for model in models}

    @cached_property
    def valid(self) -> Mapping[str, Sequence[bytes]]:
        """For each graph its request, raw, typed and for classes."""
        return {
            name: [*(request(name, served.feed, raw=raw) for raw in (True, False)), classified(name, served)]
            for name, served in self.served.items()
        }

    @cached_property
    def shapes(self) -> Sequence[bytes]:
        return examples(ModelInferRequest, SHAPES, self.seed)

    @cached_property
    def known(self) -> Sequence[bytes]:
        good = [pack_bytes([name.encode(), *requests]) for name, requests in self.valid.items()]
        return [*good, *(pack_bytes([b"lengths", nothing(*shape), nothing(*shape)]) for shape in NOTHING)]

    def mutant(self, dice: random.Random) -> bytes:
        name = dice.choice(list(self.served))
        return pack_bytes([name.encode(), *(self._mutant(dice, name) for _ in range(dice.randint(1, 4)))])

    def _mutant(self, dice: random.Random, name: str) -> bytes:
        if dice.random() < 0.25:
            return resized(dice, name, self.served[name].feed)
        return mutate_message(dice, self.valid[name] if dice.random() < 0.9 else self.shapes)

    def run(self, data: bytes) -> bool:
        """Whether the frontend takes any of the requests. The others go to the engine too: it stands for itself."""
        head, *requests = unpack_bytes(data)
        name = head.decode()
        engine, good = self.engines[name], self.valid[name][0]
        accepted = {f"{number}": self._accepts(name, raw) for number, raw in enumerate(requests)}
        works = {"before": good} | {f"{number}": raw for number, raw in enumerate(requests)} | {"behind": good}
        ended = _run(engine, works)
        for lease, output in ended.items():
            self._check(name, works[lease], output, valid=accepted.get(lease, True))
        must(engine.capacity().jobs == self._room(engine), "the engine still holds something")
        return any(accepted.values())

    def _accepts(self, name: str, raw: bytes) -> bool:
        try:
            parse_infer(raw, BOUNDS).against(self.entries[name])
        except MillraceError:
            return False
        return True

    def _check(self, name: str, raw: bytes, output: Output, *, valid: bool) -> None:
        served = self.served[name]
        if output.failure is not None:
            must(output.failure.code in (Code.INVALID_ARGUMENT, Code.INTERNAL), f"ended with {output.failure}")
            must(raw != self.valid[name][0], f"a good request fails beside others: {output.failure}")
            return
        must(callable(output.result), "an output without a result")
        response = output.result() if callable(output.result) else None
        assert isinstance(response, ModelInferResponse)
        found, asked = answered(response), ModelInferRequest.FromString(raw)
        wanted = {wanted.name for wanted in asked.outputs}
        must(found.keys() == (wanted or {spec.name for spec in self.entries[name].outputs}), f"outputs {set(found)}")
        if served.answer is not None and valid:
            with np.errstate(all="ignore"):
                answer = served.answer(arrays(asked))
            plain = found.keys() - {output.name for output in asked.outputs if CLASSIFICATION in output.parameters}
            for port, expected in answer.items():
                must(port not in plain or _equal(found[port], expected), f"another answer in {port}")

    def _room(self, engine: BatchEngine) -> int:
        return 2 * (engine.config.max_rows if engine.ports.batched else 2)


def _batch_engine(model: repository.Model) -> BatchEngine:
    engine = repository.load(model, "cpu", threads=1)
    assert isinstance(engine, BatchEngine)
    return engine


def _entry(model: repository.Model, engine: BatchEngine) -> ModelEntry:
    signature = engine.signature
    return ModelEntry(
        name=model.name,
        version=model.version,
        task="tensor",
        digest="",
        inputs=signature.inputs,
        outputs=signature.outputs,
        max_batch_size=signature.max_batch_size,
    )


def _run(engine: BatchEngine, works: Mapping[str, bytes]) -> dict[str, Output]:
    """Adds all, and steps until nothing is left. Each must end once, with one output."""
    for lease, raw in works.items():
        engine.add(leased(lease, raw))
    ended: dict[str, Output] = {}
    for _ in range(MOST_STEPS):
        outputs = engine.step()
        if outputs is None:
            break
        for output in outputs:
            must(output.last and output.lease not in ended, "more than one output for a job")
            ended[output.lease] = output
    must(ended.keys() == works.keys(), f"{len(works) - len(ended)} jobs have no end")
    return ended


def request(name: str, feed: Arrays, *, raw: bool = True) -> bytes:
    message = ModelInferRequest(model_name=name, id="7")
    for port, array in feed.items():
        add_input(message, port, array, raw=raw)
    return message.SerializeToString()


def classified(name: str, served: Served) -> bytes:
    """A request for the two largest values of each output."""
    message = ModelInferRequest.FromString(request(name, served.feed))
    for output in served.graph().graph.output:
        message.outputs.add(name=output.name).parameters[CLASSIFICATION].int64_param = 2
    return message.SerializeToString()


def resized(dice: random.Random, name: str, feed: Arrays) -> bytes:
    """The request with as many elements as other sizes need; tensors of nothing may be of any size."""
    message = ModelInferRequest.FromString(request(name, feed))
    sizes = [dice.choice(SIZES) for _ in range(4)]
    for index, (tensor, array) in enumerate(zip(message.inputs, feed.values(), strict=True)):
        shape = [dice.choice((size, sizes[axis], sizes[axis])) for axis, size in enumerate(array.shape)]
        empty = 0 in shape
        tensor.shape[:] = [dice.choice((size, size, *HUGE)) if empty and size else size for size in shape]
        count = 0 if empty else int(np.prod(shape))
        values = np.resize(array, count)
        message.raw_input_contents[index] = pack_bytes(list(values)) if tensor.datatype == "BYTES" else values.tobytes()
    return message.SerializeToString()


def nothing(*shape: int) -> bytes:
    """A request for `lengths` without any elements."""
    message = ModelInferRequest(model_name="lengths")
    message.inputs.add(name="x", datatype="FP32", shape=shape)
    message.raw_input_contents.append(b"")
    return message.SerializeToString()


def arrays(asked: ModelInferRequest) -> Arrays:
    """The inputs of a request that was accepted, read by other code than the worker's."""
    found = {}
    for index, tensor in enumerate(asked.inputs):
        if asked.raw_input_contents:
            flat = _flat(tensor.datatype, asked.raw_input_contents[index])
        else:
            values = [value for _, values in tensor.contents.ListFields() for value in values]
            flat = np.array(values, DTYPES.get(tensor.datatype, np.object_))
        found[tensor.name] = flat.reshape(tuple(tensor.shape))
    return found


def answered(response: ModelInferResponse) -> Arrays:
    return {
        tensor.name: _flat(tensor.datatype, raw).reshape(tuple(tensor.shape))
        for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
    }


def _flat(datatype: str, raw: bytes) -> Array:
    if datatype == "BYTES":
        items = unpack_bytes(raw)
        array = np.empty(len(items), object)
        array[:] = items
        return array
    if datatype == "BOOL":
        return np.frombuffer(raw, np.uint8).astype(np.bool_)
    return np.frombuffer(raw, DTYPES[datatype])


def _equal(found: Array, expected: Array) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if found.dtype.kind != "f":
        return bool(np.array_equal(found, expected))
    return bool(np.allclose(found, expected, rtol=1e-5, atol=1e-5, equal_nan=True))
