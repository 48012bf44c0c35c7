"""What constrains the output: OpenAI's response_format, and the names under which open servers know the rest."""

from collections.abc import Iterator
from typing import Any

from millrace.errors import InvalidRequest, Violation
from millrace.v1.generation_pb2 import OutputFormat
from services.frontend.openai.fields import Fields, to_json

ANY_OBJECT = '{"type":"object"}'
Named = tuple[str, OutputFormat]


def read_format(fields: Fields) -> OutputFormat | None:
    """The one that is given. Raises InvalidRequest where several are."""
    found = [*_response_format(fields), *_structured_outputs(fields), *_guided(fields)]
    if len(found) > 1:
        raise InvalidRequest([Violation(found[1][0], f"cannot be combined with {found[0][0]}")])
    return found[0][1] if found else None


def _response_format(fields: Fields) -> Iterator[Named]:
    given = fields.inner("response_format")
    if given is None:
        return
    kind = given.required("type")
    if kind == "json_object":
        yield "response_format", OutputFormat(json_schema=ANY_OBJECT)
    elif kind == "json_schema":
        schema = given.inner("json_schema") or given.refuse("json_schema", "is required")
        yield "response_format", OutputFormat(json_schema=_schema(schema, "schema"))
    elif kind != "text":
        given.refuse("type", "must be text, json_object or json_schema")


def _structured_outputs(fields: Fields) -> Iterator[Named]:
    given = fields.inner("structured_outputs")
    if given is None:
        return
    if given.get("structural_tag") is not None:
        given.refuse("structural_tag", "is not supported")
    if given.flag("json_object"):
        yield "structured_outputs.json_object", OutputFormat(json_schema=ANY_OBJECT)
    yield from _named(given, "", "structured_outputs.")


def _guided(fields: Fields) -> Iterator[Named]:
    if fields.flag("guided_json_object"):
        yield "guided_json_object", OutputFormat(json_schema=ANY_OBJECT)
    yield from _named(fields, "guided_", "")


def _named(fields: Fields, prefix: str, path: str) -> Iterator[Named]:
    """`prefix` and json, regex, grammar or choice."""
    if fields.get(f"{prefix}json") is not None:
        yield f"{path}{prefix}json", OutputFormat(json_schema=_schema(fields, f"{prefix}json"))
    if (regex := fields.text(f"{prefix}regex")) is not None:
        yield f"{path}{prefix}regex", OutputFormat(regex=regex)
    if (grammar := fields.text(f"{prefix}grammar")) is not None:
        yield f"{path}{prefix}grammar", OutputFormat(grammar=grammar)
    if fields.get(f"{prefix}choice") is not None:
        choices = OutputFormat.Choices(texts=fields.texts(f"{prefix}choice"))
        yield f"{path}{prefix}choice", OutputFormat(choices=choices)


def _schema(fields: Fields, name: str) -> str:
    """A JSON Schema, as an object or as the text of one."""
    schema: Any = fields.get(name)
    if isinstance(schema, str):
        return schema
    if not isinstance(schema, dict | bool):
        fields.refuse(name, "must be a JSON Schema")
    return to_json(schema)
