from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from services.worker.generation.text.vocabulary import Detokenizer, Vocabulary, WindowDetokenizer
from tests.models import EOS, EOS_ID, tokenizer
from tests.worker.generation.jobs import tiny_model

TOKENS = tokenizer().get_vocab_size()


def vocabulary() -> Vocabulary:
    return Vocabulary(tiny_model().folder / "tokenizer.json")


def pieces(detokenizer: Detokenizer, token_ids: list[int]) -> list[str]:
    return [*(detokenizer.push(token_id) for token_id in token_ids), detokenizer.flush()]


def pre_tokenized(character: str) -> str:
    """A character's bytes, as byte-level vocabularies write them."""
    ((word, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str(character)
    return word


def single(known: Tokenizer, token: str) -> int:
    token_id = known.token_to_id(token)
    assert token_id is not None
    return token_id


@given(token_ids=st.lists(st.integers(0, TOKENS - 1), max_size=40))
def test_pieces_of_any_tokens_join_to_the_tokenizers_own_text(token_ids: list[int]) -> None:
    assert "".join(pieces(vocabulary().detokenizer(), token_ids)) == tokenizer().decode(token_ids)


@given(text=st.text(max_size=30))
def test_a_text_comes_back_from_its_tokens_without_replacement_characters(text: str) -> None:
    found = pieces(vocabulary().detokenizer(), vocabulary().encode(text))
    assert "".join(found) == text
    assert "\ufffd" in text or not any("\ufffd" in piece for piece in found)


def test_half_a_character_waits_for_its_other_half() -> None:
    token_ids = [single(tokenizer(), character) for character in pre_tokenized("é")]
    assert pieces(vocabulary().detokenizer(), token_ids) == ["", "é", ""]
    assert pieces(vocabulary().detokenizer(), token_ids[:1]) == ["", "\ufffd"]


def test_special_tokens_and_ids_beyond_the_tokenizer_have_no_text() -> None:
    assert pieces(vocabulary().detokenizer(), [EOS_ID, 100_000]) == ["", "", ""]
    assert tokenizer().token_to_id(EOS) == EOS_ID


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    """A vocabulary of words with leading blanks, and of bytes, as SentencePiece's models have."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "▁the", "▁stop", "s", "é"]
    built = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, [], byte_fallback=True))
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    built.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return built


@given(data=st.data())
def test_a_vocabulary_that_is_not_byte_level_is_decoded_in_a_window(
    sentencepiece: Tokenizer, data: st.DataObject
) -> None:
    words = st.sampled_from(["▁the", "▁stop", "s", "é", "▁"])
    smile = st.just([f"<0x{byte:02X}>" for byte in "🙂".encode()])
    chosen = data.draw(st.lists(st.one_of(words.map(lambda word: [word]), smile), max_size=12))
    token_ids = [single(sentencepiece, word) for group in chosen for word in group]
    assert "".join(pieces(WindowDetokenizer(sentencepiece), token_ids)) == sentencepiece.decode(token_ids)


def test_the_kind_of_vocabulary_is_read_from_its_decoder(tmp_path: Path, sentencepiece: Tokenizer) -> None:
    sentencepiece.save(str(tmp_path / "tokenizer.json"))
    assert isinstance(Vocabulary(tmp_path / "tokenizer.json").detokenizer(), WindowDetokenizer)
    assert not isinstance(vocabulary().detokenizer(), WindowDetokenizer)
