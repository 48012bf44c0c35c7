"""Conversations as the usual families of models want them, and templates that mean harm."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer

from services.worker.generation.text import chat
from services.worker.generation.text.chat import ChatError, ChatTemplate, read_chat_template
from tests.models import tokenizer

Messages = list[tuple[str, str]]

CHATML = """{%- if messages[0]['role'] == 'system' -%}
    {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
{%- else -%}
    {{- '<|im_start|>system\\nYou are helpful.<|im_end|>\\n' }}
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'user' or message.role == 'assistant' or (message.role == 'system' and not loop.first) -%}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' }}
{%- endif -%}
"""
LLAMA = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
MISTRAL = """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set users = loop_messages | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- else %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- endif %}
{%- endfor %}
"""
GEMMA = """{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role') }}{% endif %}
{% for message in messages %}
    {% if (message['role'] == 'assistant') %}
        {% set role = 'model' %}
    {% else %}
        {% set role = message['role'] %}
    {% endif %}
    {{- '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}
"""
PHI = (
    "{% for message in messages %}{{'<|' + message['role'] + '|>' + '\\n' + message['content'] + '<|end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% else %}{{ eos_token }}{% endif %}"
)
TURNS: Messages = [("user", " Hi\n"), ("assistant", "Hello."), ("user", "Who?")]
NOW = datetime(2026, 3, 9, 12, 0)


@pytest.mark.parametrize(
    ("source", "messages", "expected"),
    [
        (
            CHATML,
            TURNS,
            "<|im_start|>system\nYou are helpful.<|im_end|>\n<|im_start|>user\n Hi\n<|im_end|>\n"
            "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nWho?<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            CHATML,
            [("system", "Be brief."), ("user", "x")],
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n",
        ),
        (
            LLAMA,
            [("system", " Be brief.\n"), *TURNS],
            "<s><|start_header_id|>system<|end_header_id|>\n\nToday Date: 09 Mar 2026\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nHello.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nWho?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n",
        ),
        (
            MISTRAL,
            [("system", "Be brief."), *TURNS],
            "<s>[INST]  Hi\n[/INST] Hello.</s>[INST] Be brief.\n\nWho?[/INST]",
        ),
        (
            GEMMA,
            TURNS,
            "<s><start_of_turn>user\nHi<end_of_turn>\n<start_of_turn>model\nHello.<end_of_turn>\n"
            "<start_of_turn>user\nWho?<end_of_turn>\n<start_of_turn>model\n",
        ),
        (
            PHI,
            [("system", "Be brief."), ("user", "Hi")],
            "<|system|>\nBe brief.<|end|>\n<|user|>\nHi<|end|>\n<|assistant|>\n",
        ),
    ],
    ids=["chatml", "chatml-system", "llama", "mistral", "gemma", "phi"],
)
def test_a_family_of_models_gets_the_text_that_it_was_trained_on(
    source: str, messages: Messages, expected: str
) -> None:
    assert template(source).render(messages, now=NOW) == expected


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, {"bos_token": "<s>", "eos_token": "</s>"})


def rendered(source: str, messages: Messages = TURNS) -> str:
    return template(source).render(messages, now=NOW)


@pytest.mark.parametrize(
    ("source", "messages", "reason"),
    [
        (MISTRAL, [("assistant", "x")], "Conversation roles must alternate"),
        (MISTRAL, [("user", "x"), ("user", "y")], "Conversation roles must alternate"),
        (GEMMA, [("system", "x")], "No system role"),
        (CHATML, [], "list object has no element 0"),
    ],
)
def test_a_conversation_that_the_template_refuses_is_refused_with_its_reason(
    source: str, messages: Messages, reason: str
) -> None:
    with pytest.raises(ChatError, match=f"^the chat template refuses the conversation: .*{reason}"):
        rendered(source, messages)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{% if true %}\n  a\n  {% endif %}\nb", "  a\nb"),
        ("{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}{{ m.content }}{% endfor %}", " Hi\n"),
        ("{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }} {% endfor %}", "1/2 2/2 "),
        ("{% for m in messages recursive %}{{ loop.depth }}{% endfor %}", "111"),
        ("{% generation %}{{ messages[1].content }}{% endgeneration %}", "Hello."),
        ("{{ {'b': '<é>', 'a': [1, none, true]} | tojson }}", '{"b": "<é>", "a": [1, null, true]}'),
        ("{{ {'b': 1, 'a': 2} | tojson(indent=2, sort_keys=true) }}", '{\n  "a": 2,\n  "b": 1\n}'),
        ("{{ strftime_now('%Y-%m-%d') }}", "2026-03-09"),
        ("{{ unk_token }}{{ nothing }}{{ tools }}", "None"),
        ("{{ messages | map(attribute='role') | join(', ') }}", "user, assistant, user"),
        ("{{ ','.join(['a', 'b']) ~ 1 ~ 'abc'.replace('b', 'x') ~ 'abc'|replace('b', 'y') }}", "a,b1axcayc"),
        (
            "{% for m in messages %}{{ m.content.strip().replace('H', 'h') }}{{ '-'.join(['a']) }}{% endfor %}",
            "hiahello.aWho?a",
        ),
        ("{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}{{ twice('a') }}", "aa"),
        ("{% macro a() %}[{{ caller() }}]{% endmacro %}{% call a() %}x{% endcall %}", "[x]"),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 2 %}{% endfor %}{{ ns.n }}", "6"),
        ("{% set x = 'a\nb' %}{{ x | indent(2) }}|{{ x | indent(first=true) }}", "a\n  b|    a\n    b"),
        ("{{ messages[::-1][0].content }}{{ 'abc'[1:] }}{{ 7 % 4 }}{{ '=' * 3 }}{{ 2 ** 5 }}", "Who?bc3===32"),
        ("{% for key, value in {'a': 1}.items() %}{{ key }}{{ value }}{% endfor %}", "a1"),
    ],
)
def test_templates_have_what_hugging_face_gives_them(source: str, expected: str) -> None:
    assert rendered(source) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{{ x",
        "{% for a in b %}",
        "{{ x | nosuchfilter }}",
        "{{ x | center(10) }}",
        "{{ 'a' is nosuchtest }}",
        "{% break %}",
        "{{ " + "(" * 5_000 + ")" * 5_000 + " }}",
        "{{ " + "-" * 5_000 + "1 }}",
        "{% for x in y %}" * 100 + "{% endfor %}" * 100,
        "x" * (chat.TEMPLATE_BYTES + 1),
    ],
)
def test_a_template_that_does_not_compile_is_named_at_load(source: str) -> None:
    with pytest.raises(ValueError, match=r"^the chat template does not compile: ."):
        template(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'role': 'x'}) }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ strftime_now.__self__.x }}",
        "{% include 'x' %}",
        "{{ lipsum(n=5) }}",
        "{{ '{0.__class__}'.format(messages) }}",
        "{{ ('{0.__class__}' | string).format_map(messages) }}",
        "{{ '{:>999999999}'['format']('x') }}",
        "{{ '%s' % messages }}",
    ],
)
def test_a_template_reaches_nothing_but_its_conversation(source: str) -> None:
    with pytest.raises(ChatError, match=r"^the chat template refuses the conversation: ."):
        rendered(source)


STOPPED = "too much work|is not available|not formatted|is too large|must be from 0 to|Range too big|maximum recursion"
DOUBLED = "{% set ns = namespace(x='ab') %}{% for i in range(60) %}{% set ns.x = OF %}{% endfor %}{{ ns.x }}"
NESTED = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = OF %}{% endfor %}{{ ns.x | tojson }}"


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) if false %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% set x %}{% for a in range(99999) %}" + "x" * 10_000 + "{% endfor %}{% endset %}{{ x | length }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in range(10**9) %}{% endfor %}",
        "{% for a in [[1]] recursive %}{{ loop([a, a]) }}{% endfor %}",
        "{{ 'a' * 10**9 }}",
        "{{ [0] * 10**9 }}",
        "{{ 10**9 * 'a' }}",
        "{{ 3**(10**9) }}",
        "{{ 'a'.ljust(10**9) }}",
        "{{ 'a'.zfill(10**9) }}",
        "{{ 'a\n' | indent(10**9) }}{{ messages | tojson(indent=10**9) }}",
        "{{ (1).to_bytes(10**9) }}",
        "{{ ('a' * 10**6).replace('a', 'b' * 10**6) }}",
        "{{ ('a' * 10**6) | replace('a', 'b' * 10**6) }}",
        "{{ ('a' * 10**6).join('b' * 10**6) }}",
        "{{ ('b' * 10**6) | join('a' * 10**6) }}",
        "{{ '%1000000000d' % 1 }}",
        *(DOUBLED.replace("OF", of) for of in ("ns.x + ns.x", "ns.x ~ ns.x", "[ns.x, ns.x] | join", "ns.x * 2")),
        *(DOUBLED.replace("OF", of) for of in ("ns.x.replace('a', 'aa')", "ns.x | replace('a', 'aa')")),
        *(NESTED.replace("OF", of) for of in ("[ns.x, ns.x]", "(ns.x, ns.x)", "{0: ns.x, 1: ns.x}", "ns.x + ns.x")),
        NESTED.replace("OF", "dict(a=ns.x, b=ns.x)"),
        "{% set ns = namespace(x=7) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}{{ ns.x > 1 }}",
    ],
)
def test_a_template_that_would_never_end_or_fill_the_memory_is_stopped(source: str) -> None:
    with pytest.raises(ChatError, match=STOPPED):
        rendered(source)


def test_a_text_beyond_the_bound_is_refused_whoever_wrote_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "OUTPUT_CHARACTERS", 100)
    assert len(rendered(PHI, [("user", "x" * 60)])) <= 100
    with pytest.raises(ChatError, match="the rendered conversation has more than 100 characters"):
        rendered(PHI, [("user", "x" * 100)])


def test_a_long_conversation_is_within_the_budget() -> None:
    turns = [("user", "x" * 900), ("assistant", "y" * 900)] * 1_000
    for source in (CHATML, LLAMA, MISTRAL, GEMMA, PHI):
        assert len(rendered(source, turns)) > 1_800_000


IM_START, IM_END = "<|im_start|>", "<|im_end|>"


@pytest.fixture(scope="module")
def chatty() -> Tokenizer:
    built = Tokenizer.from_str(tokenizer().to_str())
    built.add_special_tokens([AddedToken(token, normalized=False) for token in (IM_START, IM_END, "<|im_end|>x")])
    return built


CONTENTS = st.lists(st.sampled_from([IM_START, IM_END, "<|", "im_end|>", "x", " ", "\ufdd0", "é", "<"])).map("".join)


@settings(deadline=None)
@given(contents=st.lists(CONTENTS, min_size=1, max_size=3))
def test_no_content_can_spell_a_special_token(chatty: Tokenizer, contents: list[str]) -> None:
    messages = [("user", content) for content in contents]
    special = [token.content for token in chatty.get_added_tokens_decoder().values()]
    pieces = template(PHI.replace("<|end|>", IM_END)).pieces(messages, special)
    ids = [token_id for piece in pieces for token_id in chatty.encode(piece, add_special_tokens=False).ids]
    assert ids.count(chatty.token_to_id(IM_END) or -1) == len(contents)
    assert ids.count(chatty.token_to_id(IM_START) or -1) == 0
    assert chatty.decode(ids, skip_special_tokens=False) == template(PHI.replace("<|end|>", IM_END)).render(messages)


def test_contents_without_special_tokens_are_one_piece() -> None:
    assert template(PHI).pieces(TURNS, ["<|end|>", "<"]) == [rendered(PHI)]
    assert template(PHI).pieces(TURNS, []) == [rendered(PHI)]


def test_contents_that_hold_a_special_token_and_every_character_to_cut_at_are_refused() -> None:
    with pytest.raises(ChatError, match="U\\+FDD0 to U\\+FDEF"):
        template(PHI).pieces([("user", "<|end|>" + "".join(chat.CUTS))], ["<|end|>"])


def written(folder: Path, config: Any = None, jinja: str | bytes | None = None) -> Path:
    if config is not None:
        (folder / "tokenizer_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    if jinja is not None:
        (folder / "chat_template.jinja").write_bytes(jinja if isinstance(jinja, bytes) else jinja.encode())
    return folder


@pytest.mark.parametrize(
    ("config", "jinja", "expected"),
    [
        ({"chat_template": "a{{ bos_token }}", "bos_token": "<s>"}, None, "a<s>"),
        ({"chat_template": "a{{ bos_token }}", "bos_token": {"content": "<s>", "lstrip": False}}, None, "a<s>"),
        ({"chat_template": "a{{ bos_token }}", "bos_token": None}, None, "a"),
        ({"chat_template": [{"name": "tool_use", "template": "b"}, {"name": "default", "template": "c"}]}, None, "c"),
        ({"chat_template": "a", "eos_token": "</s>"}, "d{{ eos_token }}é", "d</s>é"),
        (None, "e", "e"),
    ],
)
def test_the_template_is_found_where_hugging_face_stores_it(
    tmp_path: Path, config: Any, jinja: str | None, expected: str
) -> None:
    found = read_chat_template(written(tmp_path, config, jinja))
    assert found is not None
    assert found.render(TURNS) == expected


@pytest.mark.parametrize("config", [None, {}, {"chat_template": None}, {"chat_template": [{"name": "x"}]}])
def test_a_folder_may_have_no_template(tmp_path: Path, config: Any) -> None:
    assert read_chat_template(written(tmp_path, config)) is None


@pytest.mark.parametrize(
    ("config", "jinja", "reason"),
    [
        ("{", None, "tokenizer_config.json is not JSON"),
        ([], None, "tokenizer_config.json is not an object"),
        ({"chat_template": 5}, None, "chat_template is neither a text nor a list of named ones"),
        ({"chat_template": [{"name": "default"}, 7]}, "x" * 300_000, "chat_template.jinja has more than 262144 bytes"),
        ({"chat_template": [{"name": "default", "template": 5}]}, None, "chat_template is neither a text nor"),
        ({"chat_template": "a", "bos_token": 5}, None, "a special token is neither a text nor an object"),
        ({"chat_template": "a", "bos_token": {}}, None, "a special token is neither a text nor an object"),
        (None, b"\xff", "chat_template.jinja is not UTF-8"),
        (None, "{% if %}", "the chat template does not compile"),
    ],
)
def test_a_file_that_is_not_in_order_is_named_at_load(tmp_path: Path, config: Any, jinja: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        read_chat_template(written(tmp_path, config, jinja))
