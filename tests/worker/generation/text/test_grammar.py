"""Whatever tokens are drawn among the allowed ones, the text is what was asked for."""

import itertools
import json
import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lark import Lark
from llguidance import LLParserLimits
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from millrace.v1.generation_pb2 import OutputFormat
from services.worker.generation.text import grammar, trial
from services.worker.generation.text.grammar import Grammar, GrammarError, GrammarOverrun, Grammars
from services.worker.generation.text.trial import Trial
from tests.models import EOS, EOS_ID, tokenizer

VOCABULARY = 320
"""The tiny model's, of which its tokenizer has not all."""
TURN = "<|turn|>"
MOST_TOKENS = 600


@dataclass(frozen=True, slots=True)
class Model:
    """A tokenizer, and what ends a text."""

    known: Tokenizer
    end: tuple[int, ...]

    def grammars(self) -> Grammars:
        return Grammars(self.known, VOCABULARY, self.end)

    def id(self, token: str) -> int:
        token_id = self.known.token_to_id(token)
        assert token_id is not None
        return token_id


def byte_level() -> Model:
    """Two tokens end a text: one of them only a turn, as in models for chats."""
    built = Tokenizer.from_str(tokenizer().to_str())
    built.add_special_tokens([AddedToken(TURN, normalized=False)])
    return Model(built, (EOS_ID, built.token_to_id(TURN) or 0))


def sentencepiece(**changed: Any) -> Model:
    """Words with leading blanks, and bytes for the rest."""
    words = [
        "</s>",
        "<unk>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        "▁the",
        "▁stop",
        *'the":{}[]0123456789,',
    ]
    ids = {word: index for index, word in enumerate(dict.fromkeys(words))}
    built = Tokenizer(models.BPE(ids, [], byte_fallback=True, unk_token="<unk>"))
    built.add_special_tokens(["</s>", "<unk>"])
    built.pre_tokenizer = pre_tokenizers.Metaspace()
    built.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    for name, part in changed.items():
        setattr(built, name, part)
    return Model(built, (0,))


BYTE_LEVEL = byte_level()
MODELS = {
    "byte-level": BYTE_LEVEL,
    "sentencepiece": sentencepiece(),
    "prepending": sentencepiece(
        normalizer=normalizers.Prepend("▁"), pre_tokenizer=pre_tokenizers.Metaspace("▁", "never")
    ),
    "metaspace": sentencepiece(
        decoder=decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never")])
    ),
}
ANOTHER = BYTE_LEVEL.grammars()
"""As in another process."""
GRAMMARS = {name: model.grammars() for name, model in MODELS.items()}


def schema(document: Any) -> OutputFormat:
    return OutputFormat(json_schema=json.dumps(document))


def choices(*texts: str) -> OutputFormat:
    return OutputFormat(choices=OutputFormat.Choices(texts=texts))


def allowed(state: Grammar, vocabulary_size: int = VOCABULARY) -> list[int]:
    """The token ids that may come next."""
    mask = np.full(-(-vocabulary_size // 8), 0xAA, np.uint8)
    state.fill(mask)
    return [int(token_id) for token_id in np.flatnonzero(np.unpackbits(mask, bitorder="little"))]


def draw(state: Grammar, dice: random.Random, model: Model = BYTE_LEVEL, most: int = MOST_TOKENS) -> list[int]:
    """Tokens from the allowed ones, up to one that ends the text, or `most`. Half of them are drawn from those that
    bring the end nearer."""
    nearer = {*model.end, *(model.known.token_to_id(token) for token in ('"', "}", "]", ")", "e"))}
    token_ids: list[int] = []
    while len(token_ids) < most:
        options = allowed(state)
        assert options
        assert not state.is_complete or options == sorted(model.end)
        best = [token_id for token_id in options if token_id in nearer]
        token_ids.append(dice.choice(best if best and dice.random() < 0.5 else options))
        assert state.accept(token_ids[-1])
        if token_ids[-1] in model.end:
            assert state.is_complete
            assert allowed(state) == sorted(model.end)
            break
    return token_ids


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "tags": {"type": "array", "items": {"enum": ["a", "naïve", "🙂", 7, None]}, "maxItems": 3},
        "height": {"type": "number", "exclusiveMinimum": 0},
        "of": {"anyOf": [{"const": {"x": [1]}}, {"type": "boolean"}, {"type": "null"}]},
    },
    "required": ["name", "age", "of"],
    "additionalProperties": False,
}
TREE = {
    "$ref": "#/$defs/node",
    "$defs": {
        "node": {
            "type": "object",
            "properties": {
                "value": {"type": "string", "pattern": "^[a-z]{1,3}$"},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 2},
            },
            "required": ["value"],
            "additionalProperties": False,
        }
    },
}
OPEN = {"type": "object", "additionalProperties": {"type": "integer"}, "x-guidance": {"whitespace_pattern": "x+"}}
REGEXES = (
    r"[0-9]{4}-[0-9]{2}(-[0-9]{2})?",
    r"(the|stop)+ ?[^a-y]{2,5}",
    "^é*🙂+$",
    r"[A-Za-z/]+@[a-z]{1,9}\.(com|org)",
    "(?i)yes|no|",
    "a/b",
)
CHOICES = ("yes", "no", "not yet", "a.b*(c|d)[e]{2}^$\\+?", "the stop", "日本\n/", "🙂", "<|endoftext|>", "")
SUMS = """
start: product ("+" product)*
product: atom ("*" atom)*
atom: NUMBER | "(" start ")"
NUMBER: /[0-9]+/
"""


def is_valid(document: Any) -> Callable[[str], object]:
    return lambda text: jsonschema.validators.validator_for(document)(document).is_valid(json.loads(text))


def matches(pattern: str) -> Callable[[str], object]:
    return lambda text: re.fullmatch(pattern, text)


CASES: dict[str, tuple[OutputFormat, Callable[[str], object]]] = {
    **{name: (schema(document), is_valid(document)) for name, document in (("person", PERSON), ("tree", TREE))},
    "open": (schema(OPEN), is_valid(OPEN)),
    **{pattern: (OutputFormat(regex=pattern), matches(pattern)) for pattern in REGEXES},
    "choices": (choices(*CHOICES), CHOICES.__contains__),
    "grammar": (OutputFormat(grammar=SUMS), Lark(SUMS).parse),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", MODELS)
def test_any_allowed_tokens_end_in_what_was_asked_for(name: str, case: str) -> None:
    model, (output_format, is_what_was_asked_for) = MODELS[name], CASES[case]
    ended = 0
    for seed in range(12):
        token_ids = draw(GRAMMARS[name].compile(output_format), random.Random(seed), model)
        if token_ids[-1] in model.end:
            ended += 1
            text = model.known.decode(token_ids)
            assert is_what_was_asked_for(text), text
    assert ended >= 6


@settings(deadline=None)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=6), min_size=1, max_size=5), seed=st.integers())
def test_any_texts_can_be_chosen_from(texts: list[str], seed: int) -> None:
    state = GRAMMARS["byte-level"].compile(choices(*texts))
    assert BYTE_LEVEL.known.decode(draw(state, random.Random(seed))) in texts


@pytest.mark.parametrize("name", MODELS)
def test_half_characters_are_allowed_where_the_other_half_follows(name: str) -> None:
    model = MODELS[name]
    lengths = set()
    for seed in range(40):
        *token_ids, _ = draw(GRAMMARS[name].compile(choices("🙂", "🙃", "é")), random.Random(seed), model)
        assert model.known.decode(token_ids) in ("🙂", "🙃", "é")
        lengths.add(len(token_ids))
    assert max(lengths) > 1


@settings(deadline=None)
@given(case=st.sampled_from(sorted(CASES)), seed=st.integers(), length=st.integers(1, 40))
def test_replayed_tokens_lead_to_the_same_state_in_another_process(case: str, seed: int, length: int) -> None:
    first = GRAMMARS["byte-level"].compile(CASES[case][0])
    token_ids = draw(first, random.Random(seed), most=length)
    again = ANOTHER.compile(CASES[case][0])
    for token_id in token_ids:
        assert token_id in allowed(again)
        assert again.accept(token_id)
    assert allowed(again) == allowed(first)
    assert again.is_complete == first.is_complete


@settings(deadline=None)
@given(case=st.sampled_from(sorted(CASES)), seed=st.integers(), length=st.integers(0, 20))
def test_a_fork_goes_its_own_way(case: str, seed: int, length: int) -> None:
    dice = random.Random(seed)
    state = GRAMMARS["byte-level"].compile(CASES[case][0])
    draw(state, dice, most=length)
    before, fork = allowed(state), state.fork()
    assert allowed(fork) == before
    draw(fork, dice, most=20)
    assert allowed(state) == before
    assert state.is_complete == (before == sorted(BYTE_LEVEL.end))


def test_every_token_that_ends_is_allowed_where_the_text_may_end_and_nowhere_else() -> None:
    state = GRAMMARS["byte-level"].compile(OutputFormat(regex="a+b?"))
    a, b = BYTE_LEVEL.id("a"), BYTE_LEVEL.id("b")
    assert allowed(state) == [a]
    assert not any(state.accept(token_id) for token_id in BYTE_LEVEL.end)
    assert state.accept(a)
    assert allowed(state) == sorted((*BYTE_LEVEL.end, a, b))
    for end in BYTE_LEVEL.end:
        fork = state.fork()
        assert fork.accept(end)
        assert fork.is_complete
        assert not fork.accept(a)
        assert allowed(fork.fork()) == sorted(BYTE_LEVEL.end)
    assert state.accept(b)
    assert state.is_complete
    assert allowed(state) == sorted(BYTE_LEVEL.end)


@pytest.mark.parametrize("token_id", [-1, 66, 318, 320, 2**31])
def test_a_token_that_is_not_allowed_is_refused_and_changes_nothing(token_id: int) -> None:
    state = GRAMMARS["byte-level"].compile(OutputFormat(regex="ab"))
    assert not state.accept(token_id)
    assert allowed(state) == [BYTE_LEVEL.id("a")]


def test_ids_without_a_token_are_never_allowed() -> None:
    state = GRAMMARS["byte-level"].compile(OutputFormat(grammar="start: <[*]>"))
    assert allowed(state) == list(range(BYTE_LEVEL.known.get_vocab_size()))


def test_a_model_whose_tokens_have_holes_is_constrained_all_the_same() -> None:
    document = json.loads(BYTE_LEVEL.known.to_str())
    document["model"]["vocab"]["a"] = 330
    known = Tokenizer.from_str(json.dumps(document))
    grammars = Grammars(known, 340, (EOS_ID,))
    assert allowed(grammars.compile(OutputFormat(regex="a|b")), 340) == [BYTE_LEVEL.id("b"), 330]
    everything = allowed(grammars.compile(OutputFormat(grammar="start: <[*]>")), 340)
    assert everything == sorted(set(known.get_vocab().values()))


def test_a_model_may_end_with_a_token_that_is_text_or_with_none() -> None:
    a = BYTE_LEVEL.id("a")
    state = Grammars(BYTE_LEVEL.known, VOCABULARY, (EOS_ID, a)).compile(OutputFormat(regex="[ab]b"))
    assert allowed(state) == [BYTE_LEVEL.id("b")]
    state = Grammars(BYTE_LEVEL.known, VOCABULARY, ()).compile(OutputFormat(regex="a"))
    assert state.accept(a)
    assert state.is_complete
    assert allowed(state) == []


@pytest.mark.parametrize("name", [name for name in MODELS if name != "byte-level"])
def test_words_with_leading_blanks_are_allowed_where_a_blank_is(name: str) -> None:
    state, word = GRAMMARS[name].compile(OutputFormat(regex=" (the|stop)")), MODELS[name].id("▁stop")
    assert {word, MODELS[name].id("▁"), MODELS[name].id("<0x20>")} <= {*allowed(state)}
    assert state.accept(word)
    assert state.is_complete


def test_a_vocabulary_that_is_smaller_than_the_tokenizers_is_kept_within() -> None:
    state = Grammars(BYTE_LEVEL.known, 250, (EOS_ID,)).compile(OutputFormat(regex="(?s:.+)"))
    assert max(allowed(state, 250)) < 250


@pytest.mark.parametrize("end", [EOS, TURN])
def test_a_grammar_may_name_the_token_that_ends_its_text(end: str) -> None:
    state = GRAMMARS["byte-level"].compile(OutputFormat(grammar=f'start: "a" {end}'))
    assert not state.accept(BYTE_LEVEL.id(end))
    assert state.accept(BYTE_LEVEL.id("a"))
    assert allowed(state) == [BYTE_LEVEL.id(end)]
    assert state.accept(BYTE_LEVEL.id(end))
    assert state.is_complete


@pytest.mark.parametrize("decoder", [None, decoders.WordPiece(), decoders.Metaspace()])
def test_a_tokenizer_whose_tokens_are_not_bytes_is_named_at_load(decoder: Any) -> None:
    known = sentencepiece(decoder=decoder).known
    with pytest.raises(ValueError, match=r"^tokenizer.json does not say which bytes its tokens are"):
        Grammars(known, VOCABULARY, (0,))


def test_a_tokenizer_that_names_a_byte_that_is_none_is_named_at_load() -> None:
    document = json.loads(sentencepiece().known.to_str())
    document["model"]["vocab"]["<0xZZ>"] = max(document["model"]["vocab"].values()) + 1
    with pytest.raises(ValueError, match=r"^tokenizer.json does not say which bytes its tokens are"):
        Grammars(Tokenizer.from_str(json.dumps(document)), VOCABULARY, (0,))


@pytest.mark.parametrize(
    "output_format",
    [
        OutputFormat(grammar="start: T0\n" + "".join(f"T{n}: T{n + 1}\n" for n in range(7_000)) + 'T7000: "x"'),
        OutputFormat(grammar="start: r0\n" + "".join(f"r{n}: (r{n + 1})*\n" for n in range(5_000)) + 'r5000: "x"'),
        schema({"$ref": "#/a0", **{f"a{n}": {"items": {"$ref": f"#/a{n + 1}"}} for n in range(2_500)}, "a2500": {}}),
        OutputFormat(grammar=f"start: r0 {TURN}\n" + "".join(f"r{n}: r{n + 1}\n" for n in range(7_000)) + 'r7000: "x"'),
        schema({"allOf": [{"type": "string", "pattern": f".*{n}.*"} for n in range(40)]}),
        schema({"type": "integer", "multipleOf": 999_983}),
    ],
    ids=["terminals", "rules", "definitions", "special tokens", "patterns", "multiples"],
)
def test_a_format_that_would_end_the_process_or_never_compile_is_refused(output_format: OutputFormat) -> None:
    with pytest.raises(GrammarError, match="cannot be used: it takes too much to compile"):
        GRAMMARS["byte-level"].compile(output_format)
    assert GRAMMARS["byte-level"].compile(choices("x")).accept(BYTE_LEVEL.id("x"))


def test_white_space_is_as_free_as_json_allows_but_not_endless() -> None:
    blank, state = BYTE_LEVEL.id("Ġ"), GRAMMARS["byte-level"].compile(schema(PERSON))
    assert blank not in allowed(state)
    assert state.accept(BYTE_LEVEL.id("{"))
    assert [state.accept(blank) for _ in range(65)] == [True] * 64 + [False]


@pytest.mark.parametrize(
    ("output_format", "field", "reason"),
    [
        (OutputFormat(), "", "there is no output format"),
        (choices(), ".choices", "there is nothing to choose from"),
        (OutputFormat(regex="(?=a)b"), ".regex", "look-around, including look-ahead and look-behind, is not supported"),
        (OutputFormat(regex="(a"), ".regex", "the regular expression cannot be used: unclosed group"),
        (OutputFormat(regex=r"(a)\1"), ".regex", "backreferences are not supported"),
        (OutputFormat(regex=r"[^\s\S]"), ".regex", "no text satisfies the regular expression"),
        (OutputFormat(regex="a" * 300_000), ".regex", "it has more than 262144 bytes"),
        (OutputFormat(regex="(" * 999 + ")" * 999), ".regex", "exceed the maximum number of nested parentheses"),
        (OutputFormat(grammar="start: x"), ".grammar", "the grammar cannot be used: .*unknown name"),
        (OutputFormat(grammar="start: start"), ".grammar", "no text satisfies the grammar"),
        (OutputFormat(grammar='{"grammars": []}'), ".grammar", "expecting rule, token or statement"),
        (OutputFormat(grammar="start: <|nobody|>"), ".grammar", "unknown special token"),
        (OutputFormat(json_schema="{"), ".json_schema", "the JSON Schema cannot be used: EOF while parsing"),
        (OutputFormat(json_schema="7"), ".json_schema", "Expecting object schema"),
        (schema({"type": "thing"}), ".json_schema", "Invalid type: thing"),
        (schema({"$ref": "https://example.com/a"}), ".json_schema", "Default retriever does not fetch resources"),
        (schema({"$ref": "file:///etc/passwd"}), ".json_schema", "Default retriever does not fetch resources"),
        (schema({"$ref": "#"}), ".json_schema", "no text satisfies the JSON Schema"),
        (schema({"not": {}}), ".json_schema", "Unimplemented keys"),
        (schema({"not": {}, "x-guidance": {"lenient": True}}), ".json_schema", "Unimplemented keys"),
    ],
)
def test_an_output_format_that_cannot_be_used_is_refused_in_a_sentence(
    output_format: OutputFormat, field: str, reason: str
) -> None:
    with pytest.raises(GrammarError, match=reason) as refused:
        GRAMMARS["byte-level"].compile(output_format)
    assert refused.value.field == f"output_format{field}"
    assert len(refused.value.message) <= grammar.MESSAGE_CHARACTERS
    assert refused.value.message.isprintable()


def test_a_grammar_does_not_wear_out(monkeypatch: pytest.MonkeyPatch) -> None:
    few = LLParserLimits(max_lexer_states=200, verbose_errors=False)
    monkeypatch.setattr(trial, "LIMITS", few)
    grammars, a, b = BYTE_LEVEL.grammars(), BYTE_LEVEL.id("a"), BYTE_LEVEL.id("b")
    for seed in range(20):
        state, dice = grammars.compile(OutputFormat(regex="(a|b)*a(a|b){14}")), random.Random(seed)
        for _ in range(60):
            assert {a, b} <= {*allowed(state)}
            assert state.accept(dice.choice((a, b)))


def test_what_becomes_too_complex_in_the_middle_of_a_text_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    few = LLParserLimits(max_lexer_states=50, verbose_errors=False)
    monkeypatch.setattr(trial, "LIMITS", few)
    state, a = ANOTHER.compile(OutputFormat(regex="(a|b)*a(a|b){14}")), BYTE_LEVEL.id("a")
    dice = random.Random(0)

    def follow() -> None:
        while state.accept(dice.choice((a, BYTE_LEVEL.id("b")))):
            allowed(state)

    with pytest.raises(GrammarOverrun, match=r"^the output format became too complex in the middle of the text: lexer"):
        follow()
    with pytest.raises(GrammarOverrun):
        state.accept(a)
    with pytest.raises(GrammarOverrun):
        allowed(state.fork())
    assert not state.is_complete


def test_only_grammars_that_are_new_are_tried_out(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    monkeypatch.setattr(grammar, "REMEMBERED", 2)

    def survives(_: Trial, text: str) -> bool:
        tried.append(text)
        return True

    monkeypatch.setattr(Trial, "survives", survives)
    grammars = BYTE_LEVEL.grammars()
    for text in ("a", "b", "a", "c", "a", "b"):
        grammars.compile(choices(text))
    assert len(tried) == 4


def test_formats_compile_beside_each_other_and_beside_what_runs() -> None:
    grammars, formats = BYTE_LEVEL.grammars(), [output_format for output_format, _ in CASES.values()]
    jobs = list(itertools.product(range(4), formats))

    def run(job: tuple[int, OutputFormat]) -> list[int]:
        return draw(grammars.compile(job[1]), random.Random(job[0]), most=60)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(run, jobs))
    assert found == [run(job) for job in jobs]
