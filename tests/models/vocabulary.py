"""Byte-level tokenizers for random models."""

import functools
from itertools import product

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

EOS = "<|endoftext|>"
EOS_ID = 0
TRAINED_SIZE = 320
TRAINING_TEXT = ["the stop, the end; a bélier — naïve 数据 🙂🙂 and the rest of the text is the same as the start"] * 4
LETTERS = "etaoinshrdlu"


@functools.cache
def tokenizer(size: int = TRAINED_SIZE) -> Tokenizer:
    """The end of text, the 256 bytes, and 63 merges, some of which end inside a character. A vocabulary of more tokens
    has groups of letters instead of merges, so that each of them has a text."""
    built = _trained() if size <= TRAINED_SIZE else _listed(size)
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    built.decoder = decoders.ByteLevel()
    return built


def _trained() -> Tokenizer:
    built = Tokenizer(models.BPE())
    built.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=TRAINED_SIZE,
        special_tokens=[EOS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    built.train_from_iterator(TRAINING_TEXT, trainer)
    return built


def _listed(size: int) -> Tokenizer:
    groups = ("".join(letters) for length in (4, 5) for letters in product(LETTERS, repeat=length))
    words = [EOS, *sorted(pre_tokenizers.ByteLevel.alphabet()), *groups]
    built = Tokenizer(models.BPE(vocab={word: index for index, word in enumerate(words[:size])}, merges=[]))
    built.add_special_tokens([EOS])
    return built
