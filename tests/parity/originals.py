"""transformers' side. torch is loaded where it is needed, so that the tests can be collected without it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.models import EOS, tokenizer
from tests.parity.families import Family

MATRIX_GAIN, VECTOR_SPREAD = 1.5, 0.3
EMBEDDING_SHARE = 0.3
"""Of the gain: where the head is tied to the embeddings, each token would else call itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Original:
    """A model in transformers, of 32-bit floats, with eager attention, the only one that knows softcaps."""

    model: Any

    def logits(self, token_ids: list[int]) -> npt.NDArray[np.float32]:
        """[tokens, vocabulary]: behind each position."""
        import torch

        with torch.inference_mode():
            return np.asarray(self.model(torch.tensor([token_ids])).logits[0])

    def generate(self, token_ids: list[int], tokens: int) -> list[int]:
        """As many greedy tokens as asked for, whatever they mean."""
        import torch

        prompt = torch.tensor([token_ids])
        with torch.inference_mode():
            row = self.model.generate(
                prompt, attention_mask=torch.ones_like(prompt), do_sample=False, max_new_tokens=tokens
            )[0]
        return [int(token_id) for token_id in row[len(token_ids) :]]


def write(family: Family, folder: Path) -> Original:
    """Writes a random model and its tokenizer as transformers saves them."""
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(1)
    config = getattr(transformers, family.config)(**family.settings())
    model = transformers.AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    for values in model.parameters():
        _randomise(values.data)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.weight.data.mul_(EMBEDDING_SHARE)
    model.save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer(), bos_token=EOS, eos_token=EOS, pad_token=EOS
    ).save_pretrained(folder)
    model.generation_config.eos_token_id = None
    return Original(model)


def _randomise(values: Any) -> None:
    """Norms and biases too, which are ones and noughts in new models and would hide a mistake."""
    if values.dim() > 1:
        values.normal_(std=MATRIX_GAIN * values.shape[-1] ** -0.5)
    else:
        values.add_(values.clone().normal_(std=VECTOR_SPREAD))
