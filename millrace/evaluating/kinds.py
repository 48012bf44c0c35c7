"""What may be evaluated, and what each is judged by first."""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict

Kind = Literal["classify", "infer", "generate", "perplexity", "embed", "transcribe"]
KINDS: tuple[Kind, ...] = get_args(Kind)
BY_TASK: Mapping[str, Kind] = {
    "text-classification": "classify",
    "image-classification": "classify",
    "audio-classification": "classify",
    "text-generation": "generate",
    "text-embedding": "embed",
    "speech-recognition": "transcribe",
    "tensor": "infer",
}
"""By the task that the service says of a model."""
PRIMARY: Mapping[Kind, str] = {
    "classify": "accuracy",
    "infer": "accuracy",
    "generate": "exact_match",
    "perplexity": "perplexity",
    "embed": "ndcg@10",
    "transcribe": "wer",
}
"""The measure by which one model is better than another."""
_SHARES = [f"{name}_{mean}" for name in ("precision", "recall", "f1") for mean in ("macro", "weighted", "micro")]
_LABELLED = ("accuracy", *_SHARES, "auc_macro", "average_precision_macro", "ece")
MEASURES: Mapping[Kind, Sequence[str]] = {
    "classify": _LABELLED,
    "infer": _LABELLED,
    "generate": ("exact_match",),
    "perplexity": ("perplexity", "bits_per_byte"),
    "embed": ("recall@1", "recall@5", "recall@10", "mrr@10", "ndcg@10"),
    "transcribe": ("wer", "cer"),
}
"""All that a result may have; areas under curves and calibration where there are scores."""


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
