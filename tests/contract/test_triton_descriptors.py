"""Our protos and Triton's, message by message, as far as ours go."""

import base64
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet

from millrace.oip import inference_pb2, model_config_pb2

ROOT = Path(__file__).parents[2]
OURS = (inference_pb2, model_config_pb2)


def theirs() -> FileDescriptorSet:
    """Out of a process of its own: two files with the same names cannot be loaded in one."""
    command = (sys.executable, "-m", "tests.contract.triton_descriptors")
    output = subprocess.run(command, check=True, capture_output=True, cwd=ROOT, timeout=60).stdout
    return FileDescriptorSet.FromString(base64.b64decode(output))


def ours() -> FileDescriptorSet:
    files = FileDescriptorSet()
    for module in OURS:
        module.DESCRIPTOR.CopyToProto(files.file.add())
    return files


def messages(scope: FileDescriptorProto | DescriptorProto, prefix: str) -> Iterator[tuple[str, DescriptorProto]]:
    """By their full names."""
    inner = scope.message_type if isinstance(scope, FileDescriptorProto) else scope.nested_type
    for message in inner:
        yield f"{prefix}.{message.name}", message
        yield from messages(message, f"{prefix}.{message.name}")


def enums(scope: FileDescriptorProto | DescriptorProto, prefix: str) -> Iterator[tuple[str, EnumDescriptorProto]]:
    for enum in scope.enum_type:
        yield f"{prefix}.{enum.name}", enum
    for message in scope.message_type if isinstance(scope, FileDescriptorProto) else scope.nested_type:
        yield from enums(message, f"{prefix}.{message.name}")


def fields(message: DescriptorProto) -> dict[int, tuple[object, ...]]:
    """What is on the wire and in JSON, and which fields exclude each other, by number."""
    return {
        field.number: (
            field.name,
            field.type,
            field.label,
            field.type_name,
            message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else "",
        )
        for field in message.field
    }


def methods(files: FileDescriptorSet) -> dict[str, tuple[object, ...]]:
    return {
        method.name: (method.input_type, method.output_type, method.client_streaming, method.server_streaming)
        for file in files.file
        for service in file.service
        for method in service.method
    }


def test_every_message_of_ours_is_tritons_on_the_wire() -> None:
    original = theirs()
    known = {name: fields(message) for file in original.file for name, message in messages(file, file.package)}
    mine = {name: fields(message) for file in ours().file for name, message in messages(file, file.package)}
    assert len(mine) > 50
    assert {name: numbers.items() - known.get(name, {}).items() for name, numbers in mine.items()} == {
        name: set() for name in mine
    }
    assert methods(ours()).items() == methods(original).items()


def test_every_enum_of_ours_has_tritons_values() -> None:
    def values(files: FileDescriptorSet) -> dict[str, dict[int, str]]:
        found = (pair for file in files.file for pair in enums(file, file.package))
        return {name: {value.number: value.name for value in enum.value} for name, enum in found}

    original, mine = values(theirs()), values(ours())
    assert mine
    assert {name: original.get(name) for name in mine} == mine
