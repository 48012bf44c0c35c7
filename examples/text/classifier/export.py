"""From trained weights to the model's folder, by `millrace export`, which compares the graph with PyTorch."""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import nn

from examples.text.classifier.data import LABELS
from examples.text.classifier.model import Network
from examples.text.classifier.tokens import MOST_TOKENS, Encoded
from examples.text.classifier.train import to_rows
from millrace.exporting.order import Order
from millrace.exporting.run import Published
from millrace.exporting.run import export as make
from millrace.exporting.sources.torch import Torch
from millrace.exporting.stages import Stages

ROWS = 32
KEYS = {
    "description": "A small encoder that says which package of Python's standard library a function comes from.",
    "licence": "Apache-2.0",
    "text": {"max_tokens": MOST_TOKENS, "truncate": True},
    "batching": {"max_rows": 16},
}


class Named(nn.Module):  # type: ignore[misc, unused-ignore]
    """The network with a name for its output."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.network(input_ids, attention_mask)}


def ship(network: Network, tokenizer: Path, some: Encoded, work: Path, version: Path, stages: Stages) -> Published:
    """In place of a version that is there. Raises ValueError where the graph is too far from PyTorch, on random
    tokens, or on `some` snippets, which are padded there."""
    samples, labels, rows = work / "samples.npz", work / "labels.txt", to_rows(some.ids[:ROWS], some.labels[:ROWS])
    inputs = {"input_ids": rows.ids, "attention_mask": rows.mask}
    np.savez(samples, **{name: one.numpy() for name, one in inputs.items()})
    labels.write_text("".join(f"{label}\n" for label in LABELS))
    shutil.rmtree(version, ignore_errors=True)
    order = Order(
        source="examples.text.classifier",
        out=version,
        samples=samples,
        labels=labels,
        files=(tokenizer,),
        task="text-classification",
        keys=KEYS,
    )
    shape = {0: torch.export.Dim("rows"), 1: torch.export.Dim("tokens", min=2, max=MOST_TOKENS)}
    return make(order, stages, Torch((Named(network), inputs, dict.fromkeys(inputs, shape))))
