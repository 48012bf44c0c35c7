"""The architecture: a Llama decoder (RMSNorm, rotary positions, grouped-query attention, SwiGLU), embeddings tied."""

from pathlib import Path
from typing import Any

from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from examples.text.tokenizer import CONTEXT_TOKENS, SEPARATOR, SEPARATOR_ID, VOCABULARY_SIZE


def create(layers: int = 6, hidden: int = 256, intermediate: int = 704) -> Any:
    """A freshly initialised `LlamaForCausalLM` with 4 heads over 2 KV heads; the caller seeds torch beforehand."""
    config = LlamaConfig(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        bos_token_id=SEPARATOR_ID,
        eos_token_id=SEPARATOR_ID,
        use_cache=False,
    )
    return LlamaForCausalLM(config)


def parameters(model: Any) -> int:
    """The number of weights, the tied ones counted once."""
    return sum(parameter.numel() for parameter in model.parameters())


def save(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write a folder that transformers can load: weights, configuration and tokenizer."""
    model.save_pretrained(folder)
    wrap: Any = PreTrainedTokenizerFast
    wrapped = wrap(
        tokenizer_object=tokenizer,
        bos_token=SEPARATOR,
        eos_token=SEPARATOR,
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    wrapped.save_pretrained(folder)


def load(folder: Path) -> Any:
    """The model saved in `folder`, in fp32, ready to be evaluated."""
    model: Any = LlamaForCausalLM.from_pretrained(folder, dtype="float32")
    return model.eval()
