"""Llama models of any size with random weights, as onnxruntime-genai's model builder writes them, without torch.

They are real models to everything that serves them. The small ones are written in milliseconds, the big ones at the
disk's speed:

    shapes.py       the sizes and the choices           noise.py    where the weights' numbers come from
    llama.py        the graph, in both dialects         drawing.py  a graph under construction
    folder.py       the files around it                 vocabulary.py  the tokenizers
"""

from tests.models.folder import write_model
from tests.models.shapes import LLAMA_1B, LLAMA_8B, Llama, TinyLlama
from tests.models.vocabulary import EOS, EOS_ID, tokenizer

__all__ = ["EOS", "EOS_ID", "LLAMA_1B", "LLAMA_8B", "Llama", "TinyLlama", "tokenizer", "write_model"]
