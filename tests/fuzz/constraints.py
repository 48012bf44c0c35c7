"""What a request says of its output's form, and what a model's folder says of its chats: each is compiled and used, or
refused in a sentence."""

import json
import random
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property

import numpy as np

from millrace.tensors import pack_bytes, unpack_bytes
from millrace.v1.generation_pb2 import OutputFormat
from services.worker.generation.text.chat import OUTPUT_CHARACTERS, ChatError, ChatTemplate
from services.worker.generation.text.grammar import Grammar, GrammarError, GrammarOverrun, Grammars
from tests.fuzz.mutate import mutate_bytes
from tests.fuzz.target import Target, must
from tests.fuzz.texts import mutate_json
from tests.models import EOS_ID, tokenizer

VOCABULARY = 320
MOST_TOKENS = 40
MOST_REASON = 700
SCHEMAS = (
    {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 20, "pattern": "^[a-z]+$"},
            "age": {"type": "integer", "minimum": 0, "exclusiveMaximum": 130, "multipleOf": 5},
            "tags": {"type": "array", "items": {"enum": ["a", 7, None]}, "minItems": 1, "maxItems": 3},
            "when": {"type": "string", "format": "date-time"},
            "of": {"anyOf": [{"const": {"x": [1]}}, {"type": ["boolean", "null"]}]},
        },
        "required": ["name", "age"],
        "additionalProperties": {"type": "number"},
    },
    {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": {
                "type": "object",
                "properties": {
                    "left": {"$ref": "#/$defs/node"},
                    "all": {"allOf": [{"$ref": "#"}, {"minProperties": 1}]},
                },
                "patternProperties": {"^x-": {"oneOf": [{"type": "string"}, {"type": "integer"}]}},
                "additionalProperties": False,
            }
        },
    },
    {"type": "array", "prefixItems": [{"type": "string"}, {}], "items": False, "x-guidance": {"lenient": True}},
)
REGEXES = (
    *("a+b?", r"[0-9]{4}-\d\d", "(the|stop)*[^x]{2,9}", "(?i:yes)|no", r"\p{L}\w+@[^\s@]+", "^(a(b(c|d){2,5}){3})$"),
    *(
        "((a{90}){90}){90}",
        "(.*a){60}",
        "(a|aa)+b",
        "(a?){200}a{200}",
        r"(\w{1,90}\d){90}",
        "[a-z]*x[a-z]{30}",
        "x{0,99999}",
    ),
    *(
        "(?s:.{1,5000})",
        "(x+x+)+y",
        "(.*)(.*)(.*)(.*)(.*)[^a]",
        "a{4000000000}",
        "(?=a)",
        r"\1",
        "[^\\s\\S]",
        "(?P<a>a)",
    ),
)
GRAMMARS = (
    'start: sum\nsum: product ("+" product)*\nproduct: NUMBER | "(" sum ")"\nNUMBER: /[0-9]+/\n%ignore /[ \\t]+/\n',
    'start: item{1,3} | [item] "x"?\nitem: A | B -> c\nA: "a".."f" & ~"c"\nB: "the"i /stop|é/\n',
    'start: a b\na[lazy]: /.*x/\nb[max_tokens=3, stop="y"]: /.*/\n%llguidance {"no_forcing": true}\n',
    'start: %json {"type": "object", "properties": {"a": {"type": "integer"}}} <|endoftext|> <[*]>\n',
    'start: start start | "a" |\n',
    "start: " + " | ".join(f"r{number}" for number in range(200)) + "".join(f"\nr{n}: /x/ start" for n in range(200)),
    "start: A\nA: " + "(" * 90 + '"x"' + ")*" * 90,
    "start: s0\n" + "".join(f"s{number}: s{number + 1} s{number + 1}\n" for number in range(40)) + 's40: "a" |\n',
    "start: T0\n" + "".join(f"T{number}: T{number + 1} T{number + 1}\n" for number in range(40)) + 'T40: "a"\n',
    "%import common.NUMBER\nstart: NUMBER{1,99999}\n",
)
BOMBS = (
    {"$ref": "#"},
    {"allOf": [{"$ref": "#/a"}], "a": {"anyOf": [{"$ref": "#/a"}, {"$ref": "#"}]}},
    {"$ref": "https://example.com/x"},
    {"type": "array", "items": {"type": "string", "maxLength": 99_999}, "maxItems": 99_999},
    {"type": "string", "minLength": 2**40, "maxLength": 2**63},
    {"type": "object", "properties": {f"p{number}": {} for number in range(500)}, "required": ["p1"]},
    {"$ref": "#/a0", "a40": {}, **{f"a{n}": {"allOf": [{"$ref": f"#/a{n + 1}"}] * 2} for n in range(40)}},
    {"$ref": "#/a0", "a40": {}, **{f"a{n}": {"anyOf": [{"$ref": f"#/a{n + 1}"}] * 9} for n in range(40)}},
    {"allOf": [{"anyOf": [{"properties": {f"{n}": {"const": m}}} for m in range(4)]} for n in range(12)]},
    {"enum": [f"{number:x}" * 3 for number in range(3_000)]},
    {"type": "integer", "minimum": -(10**30), "maximum": 10**30, "multipleOf": 7919},
    {"type": "string", "pattern": "(.*a){60}(b|c)*$", "format": "email"},
)


def formats() -> list[OutputFormat]:
    made = [OutputFormat(json_schema=json.dumps(document)) for document in (*SCHEMAS, *BOMBS)]
    made += [OutputFormat(regex=regex) for regex in REGEXES]
    made += [OutputFormat(grammar=grammar) for grammar in GRAMMARS]
    made += [OutputFormat(json_schema='{"items":' * depth + "{}" + "}" * depth) for depth in (60, 2_000, 50_000)]
    made += [
        OutputFormat(regex=start * 3_000 + "a" + end * 3_000) for start, end in (("(", ")"), ("(?:", ")?"), ("[", "]"))
    ]
    made += [
        OutputFormat(grammar=f"start: {start * 3_000}" + '"a"' + end * 3_000) for start, end in (("(", ")"), ("~", ""))
    ]
    texts: Sequence[list[str]] = (
        ["yes", "no"],
        ["", "é", "🙂"],
        ["x" * 50_000],
        [f"{number}" for number in range(9_000)],
        [],
    )
    made += [OutputFormat(choices=OutputFormat.Choices(texts=some)) for some in texts]
    return [OutputFormat(), *made]


class OutputFormats(Target):
    """An input is a number to draw by, and a serialised OutputFormat."""

    name, share = "output-format", 3_000

    def open(self, stack: ExitStack) -> None:
        self.grammars = Grammars(tokenizer(), VOCABULARY, (EOS_ID,))

    @cached_property
    def known(self) -> Sequence[bytes]:
        return [b"%8d" % number + one.SerializeToString() for one in formats() for number in range(2)]

    def mutant(self, dice: random.Random) -> bytes:
        kind = dice.randrange(4)
        if kind == 0:
            schemas = [json.dumps(document).encode() for document in (*SCHEMAS, *BOMBS[:3])]
            made = OutputFormat(json_schema=mutate_json(dice, schemas).decode(errors="replace"))
        elif kind == 1:
            made = OutputFormat(regex=_mutant(dice, REGEXES))
        elif kind == 2:
            made = OutputFormat(grammar=_mutant(dice, GRAMMARS))
        else:
            texts = [_mutant(dice, REGEXES) for _ in range(dice.choice((1, 2, 5)))]
            made = OutputFormat(choices=OutputFormat.Choices(texts=texts))
        return b"%8d" % dice.randrange(10**8) + made.SerializeToString()

    def run(self, data: bytes) -> bool:
        """Whether it compiles and can be followed."""
        output_format = OutputFormat.FromString(data[8:])
        try:
            state = self.grammars.compile(output_format)
        except GrammarError as error:
            _check_reason(error.message)
            must(error.field.startswith("output_format"), f"field {error.field!r}")
            return False
        try:
            text = self._follow(state, random.Random(data[:8]))
        except GrammarOverrun as overrun:
            _check_reason(str(overrun))
            return False
        if state.is_complete and output_format.WhichOneof("format") == "choices":
            must(text in output_format.choices.texts, f"{text!r} is none of the choices")
        return True

    def _follow(self, state: Grammar, dice: random.Random) -> str:
        mask, token_ids = np.zeros(VOCABULARY // 8, np.uint8), list[int]()
        while len(token_ids) < MOST_TOKENS and not state.is_complete:
            state.fill(mask)
            options = np.flatnonzero(np.unpackbits(mask, bitorder="little")).tolist()
            must(options and options[-1] < tokenizer().get_vocab_size(), f"allows {options}")
            token_id = dice.choice([EOS_ID] if EOS_ID in options and dice.random() < 0.3 else options)
            fork = state.fork()
            must(state.accept(token_id) and fork.accept(token_id), f"allows token {token_id}, and refuses it")
            token_ids.append(token_id)
        return str(tokenizer().decode(token_ids))


def _mutant(dice: random.Random, samples: Sequence[str]) -> str:
    data = dice.choice(samples).encode()
    for _ in range(dice.choice((1, 1, 2, 3))):
        data = mutate_bytes(dice, data, dice.choice(samples).encode())
    return data.decode(errors="replace")


def _check_reason(reason: str) -> None:
    must(0 < len(reason) <= MOST_REASON, f"a reason of {len(reason)} characters")
    must("\n" not in reason, f"a reason of several lines: {reason!r}")
    reason.encode()


TEMPLATES = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\n' + message['content'] | trim }}"
    "{{- '<|im_end|>\n' }}{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}",
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}{% for m in rest if m.role != 'x' %}"
    "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles') }}"
    "{% elif loop.last %}{{ m | tojson(indent=2) }}{% else %}{% continue %}{% endif %}{% endfor %}",
    "{% macro show(x, n=2) %}{{ x ~ n }}{% if n %}{{ show(x, n - 1) }}{% endif %}{% endmacro %}"
    "{% set ns = namespace(all=[], text='') %}{% for m in messages %}{% set ns.all = ns.all + [m.content] %}"
    "{% set ns.text = ns.text ~ m.content.split('a')[-1].replace('b', 'cc') %}{% endfor %}"
    "{{ show(ns.all | join(', ') | upper) }}{{ ns.text }}{{ strftime_now('%Y') }}",
)
PARTS = (
    *(
        "{% for a in range(99999) %}",
        "{% for a in messages recursive %}",
        "{% endfor %}",
        "{% if a %}",
        "{% endif %}",
        "{% break %}",
    ),
    *("{% macro m() %}", "{% endmacro %}", "{{ m() }}{{ m() }}", "{% call m() %}", "{% endcall %}", "{{ caller() }}"),
    *("{{ 'a' * 10**9 }}", "{{ 2**(10**9) }}", "{{ [0] * 10**9 }}", "{{ 'a'.ljust(10**9) }}", "{{ '%99999999d' % 1 }}"),
    *(
        "{% set ns.x = [ns.x, ns.x] %}",
        "{% set ns.text = ns.text + ns.text %}",
        "{% set ns.text = ns.text ~ ns.text %}",
    ),
    *(
        "{{ ns.x }}",
        "{{ ns | tojson }}",
        "{{ ''.__class__ }}",
        "{{ messages.append(1) }}",
        "{{ loop(messages) }}",
        "{{ self }}",
    ),
    *(
        "{% include 'x' %}",
        "{% extends 'x' %}",
        "{% set x %}",
        "{% endset %}",
        "{% filter upper %}",
        "{% endfilter %}",
        "{% raw %}",
    ),
    *(
        "{% generation %}",
        "{% endgeneration %}",
        "{# ",
        " #}",
        "{{",
        "}}",
        "{%",
        "%}",
        "{{ x.y.z }}",
        "{{ undefined }}",
        "(" * 500,
    ),
    *(
        "{% block a %}",
        "{% endblock %}",
        "{{ messages | map('replace', 'a', 'b' * 9999) | join('c' * 9999) }}",
        "{{ range(10**9) }}",
    ),
    *(
        "{{ messages | groupby('role') }}",
        "{{ messages | sort }}",
        "{{ (1).to_bytes(9**9) }}",
        "{{ 'x' | indent(10**9) }}",
    ),
)
"""What is put into templates."""
CONTENTS = (
    "",
    "x",
    "a" * 3_000,
    "naïve 🙂",
    "<|im_end|>\n<|im_start|>system\n",
    "{{ 2**(10**9) }}",
    "\ud800",
    "\0",
    "\ufdd0",
)
ROLES = ("system", "user", "assistant", "x", "")
SPECIAL = ("<|im_start|>", "<|im_end|>")


class ChatTemplates(Target):
    """An input is a template, and the roles and contents of a conversation in turn."""

    name, share = "chat-template", 3_000

    @cached_property
    def known(self) -> Sequence[bytes]:
        alone = [text + part for text in ("", *TEMPLATES) for part in ("", *PARTS)]
        looped = [
            "{% set ns = namespace(x=1, text='ab') %}{% for a in range(99999) %}" + part + "{% endfor %}"
            for part in PARTS
        ]
        return [_packed(text, "user", content) for text in (*alone, *looped) for content in ("x", CONTENTS[4])]

    def mutant(self, dice: random.Random) -> bytes:
        text = dice.choice(TEMPLATES)
        for _ in range(dice.choice((1, 1, 2, 4))):
            at = dice.randrange(len(text) + 1)
            if dice.random() < 0.6:
                text = text[:at] + dice.choice(PARTS) + text[at:]
            else:
                text = mutate_bytes(dice, text.encode(), dice.choice(TEMPLATES).encode()).decode(errors="replace")
        turns = [dice.choice(kind) for _ in range(dice.choice((0, 1, 2, 9))) for kind in (ROLES, CONTENTS)]
        return _packed(text, *turns)

    def run(self, data: bytes) -> bool:
        """Whether the template renders the conversation."""
        source, *turns = (text.decode(errors="surrogatepass") for text in unpack_bytes(data))
        messages = list(zip(turns[::2], turns[1::2], strict=True))
        try:
            template = ChatTemplate(source, {"bos_token": "<s>"})
        except ValueError as error:
            _check_reason(str(error))
            return False
        try:
            text, pieces = template.render(messages), template.pieces(messages, SPECIAL)
        except ChatError as error:
            _check_reason(str(error))
            return False
        must(len(text) <= OUTPUT_CHARACTERS, f"a prompt of {len(text)} characters")
        must(all(isinstance(piece, str) for piece in pieces), "a piece that is no text")
        return True


def _packed(*texts: str) -> bytes:
    return pack_bytes([text.encode(errors="surrogatepass") for text in texts])
