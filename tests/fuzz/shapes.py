"""Messages of any shape that a descriptor allows, drawn by Hypothesis: what the mutators start from beside samples that
are valid."""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

DEEPEST = 4
NAMES = ("tested", "tiny", "x", "y", "ids", "user", "1", "FP32", "INT64", "BYTES", "job-1", "priority", "timeout")
CPP = FieldDescriptor
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.sampled_from(NAMES)
SCALARS: Mapping[int, st.SearchStrategy[Any]] = {
    CPP.CPPTYPE_INT32: st.sampled_from((0, 1, -1, 2**31 - 1, -(2**31))) | st.integers(-(2**31), 2**31 - 1),
    CPP.CPPTYPE_INT64: st.sampled_from((0, 1, 2, 3, -1, 2**31, 2**63 - 1)) | st.integers(-(2**63), 2**63 - 1),
    CPP.CPPTYPE_UINT32: st.sampled_from((0, 1, 20, 2**32 - 1)) | st.integers(0, 2**32 - 1),
    CPP.CPPTYPE_UINT64: st.sampled_from((0, 1, 2**64 - 1)) | st.integers(0, 2**64 - 1),
    CPP.CPPTYPE_DOUBLE: st.floats(),
    CPP.CPPTYPE_FLOAT: st.sampled_from((0.0, 0.5, 1.0)) | st.floats(width=32),
    CPP.CPPTYPE_BOOL: st.booleans(),
    CPP.CPPTYPE_ENUM: st.sampled_from((0, 10, 20, 30)) | st.integers(0, 40),
}


def examples(kind: type[Message], count: int, drawn_from: int) -> Sequence[bytes]:
    """So many serialised messages, the same ones for the same number."""
    return _drawn(cast(Descriptor, kind.DESCRIPTOR), count, drawn_from)


@cache
def _drawn(descriptor: Descriptor, count: int, drawn_from: int) -> Sequence[bytes]:
    found: list[bytes] = []

    @seed(drawn_from)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(messages(descriptor, DEEPEST))
    def collect(message: Message) -> None:
        found.append(message.SerializeToString())

    collect()
    return found


@cache
def messages(descriptor: Descriptor, depth: int) -> st.SearchStrategy[Message]:
    """Any message, with messages inside it to that depth."""
    optional = {
        field.name: _values(field, depth)
        for field in descriptor.fields
        if depth or field.cpp_type != FieldDescriptor.CPPTYPE_MESSAGE
    }
    return st.fixed_dictionaries({}, optional=optional).map(lambda fields: _build(descriptor, fields))


def _values(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if _is_map(field) and field.message_type is not None:
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        return st.dictionaries(_one(key, depth - 1), _one(value, depth - 1), max_size=3)
    one = _one(field, depth - 1)
    return st.lists(one, max_size=3) if field.is_repeated else one


def _one(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type, max(depth, 0))
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return st.binary(max_size=64) if field.type == FieldDescriptor.TYPE_BYTES else TEXT
    return SCALARS[field.cpp_type]


def _build(descriptor: Descriptor, fields: Mapping[str, Any]) -> Message:
    message = GetMessageClass(descriptor)()
    for name, value in fields.items():
        if _is_map(descriptor.fields_by_name[name]):
            _fill_map(getattr(message, name), value)
        elif isinstance(value, list):
            getattr(message, name).extend(value)
        elif isinstance(value, Message):
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


def _fill_map(target: Any, values: Mapping[Any, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Message):
            target[key].CopyFrom(value)
        else:
            target[key] = value


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry
