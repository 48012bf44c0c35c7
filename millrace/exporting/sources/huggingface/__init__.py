"""Hugging Face: a folder as transformers saves it, or a model's name on the hub.

Decoders go through onnxruntime-genai's model builder, all others through `torch.onnx`: optimum-onnx, which would know
more about each architecture, does not take the transformers of today.
"""

from pathlib import Path

from millrace.exporting.built import Built, Plan
from millrace.exporting.order import Order, Precision, check_precision
from millrace.exporting.packages import need
from millrace.exporting.sources.huggingface import beside, located
from millrace.exporting.sources.huggingface.architecture import GENERATION, Architecture, read
from millrace.exporting.stages import Stages

SHARES = {Precision.FP32: 2.0, Precision.FP16: 1.0, Precision.INT8: 0.6, Precision.INT4: 0.35}
"""Of the weights' size in 16 bits."""


class HuggingFace:
    """Implements `Source`."""

    def __init__(self) -> None:
        self._folder = Path()
        self._architecture: Architecture | None = None

    def plan(self, order: Order) -> Plan:
        need(("torch", "transformers", "onnxscript"), "a model of transformers")
        self._folder = located.locate(order)
        self._architecture = architecture = read(self._folder, order)
        halves = located.weights_bytes(self._folder, order) * (0.5 if _is_wide(architecture) else 1)
        unchecked, shares = "", SHARES[order.precision]
        if architecture.task == GENERATION:
            need(("onnxruntime_genai",), "a decoder")
            from millrace.exporting.sources.huggingface import decoder

            unchecked = decoder.unchecked(order)
            shares += SHARES[Precision.FP32] if decoder.has_twin(order) else 0
        else:
            check_precision(order, Precision.FP32, Precision.FP16)
            beside.check(self._folder, architecture)
        return Plan(disk_bytes=int(2 * halves * shares), memory_bytes=int(6 * halves), unchecked=unchecked)

    def build(self, order: Order, folder: Path, stages: Stages) -> Built:
        assert self._architecture is not None
        if self._architecture.task == GENERATION:
            from millrace.exporting.sources.huggingface import decoder

            return decoder.build(self._folder, self._architecture, order, folder, stages)
        from millrace.exporting.sources.huggingface import encoder

        return encoder.build(self._folder, self._architecture, order, folder, stages)


def _is_wide(architecture: Architecture) -> bool:
    """Whether the weights have 32 bits."""
    config = architecture.config
    return (config.get("dtype") or config.get("torch_dtype") or "float32") == "float32"
