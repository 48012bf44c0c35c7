"""The graphs that model.yaml names, checked before ONNX Runtime sees them: what they are made of and what they read.

Weights may lie in files of their own, which a graph names itself; each must be one of the version's files, and hold
what is asked of it. An operator is known by its domain: what a graph uses must be of a domain that the worker serves.
"""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath

import onnx
from google.protobuf.message import Message
from onnx import TensorProto

from services.worker import untrusted
from services.worker.repository import outline
from services.worker.repository.model_file import ModelFile, inside

DOMAINS = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc"})
"""ONNX's own, and the operators that come with ONNX Runtime."""
GENERATION_FILES = ("genai_config.json", "tokenizer.json")
GENERATION = "generation"


def paths(folder: Path, file: ModelFile, names: Collection[str]) -> dict[str, str]:
    """By device, the name of the graph's file in the version's `folder`, whose files are `names`. Raises ValueError
    where it, or what the generation engine reads beside it, is missing. An engine of others' may name what is no
    file, and gets no graph."""
    found: dict[str, str] = {}
    for device, entry in file.graphs.items():
        base = PurePosixPath(entry.path)
        wanted = [base.as_posix()]
        if file.engine == GENERATION:
            beside = [(base / name).as_posix() for name in GENERATION_FILES]
            _demand(device, beside, names)
            wanted = [(base / _graph_name(folder / base)).as_posix()]
        if file.engine in (GENERATION, "batch"):
            _demand(device, wanted, names)
        if wanted[0] in names:
            found[device] = wanted[0]
    return found


def check(folder: Path, name: str, sizes: Mapping[str, int], domains: Collection[str] = ()) -> None:
    """Raises ValueError with what is wrong with the graph `name` of the version in `folder`, whose files have `sizes`.
    `domains`: served beside `DOMAINS`."""
    model = outline.read(folder / name)
    served = DOMAINS.union(domains)
    own = {(function.domain, function.name) for function in model.functions}
    for part in parts(model):
        if isinstance(part, onnx.NodeProto):
            if part.domain not in served and (part.domain, part.op_type) not in own:
                raise ValueError(f"{name}: {_operator(part)}; {_served(served)}")
        elif isinstance(part, TensorProto) and (part.external_data or part.data_location == TensorProto.EXTERNAL):
            _check_external(part, name, sizes)


def external_files(model: onnx.ModelProto, name: str) -> set[str]:
    """The version's files that hold weights of its graph `name`, which was checked."""
    tensors = (part for part in parts(model) if isinstance(part, TensorProto) and part.external_data)
    return {_data_file(dict(_pairs(tensor, name))["location"], name) for tensor in tensors}


def parts(message: Message) -> Iterator[Message]:
    """The message and all messages within, in subgraphs and functions too."""
    waiting = [message]
    while waiting:
        part = waiting.pop()
        yield part
        for field, value in part.ListFields():
            if field.message_type is not None:
                waiting.extend([value] if isinstance(value, Message) else value)


def _demand(device: str, wanted: Collection[str], names: Collection[str]) -> None:
    for name in wanted:
        if name not in names:
            raise ValueError(f"graphs.{device}: {name} is missing")


def _graph_name(folder: Path) -> str:
    try:
        return inside(untrusted.read_json(folder / GENERATION_FILES[0])["model"]["decoder"]["filename"])
    except (LookupError, TypeError):
        raise ValueError(f"{GENERATION_FILES[0]} does not name model.decoder.filename") from None


def _operator(node: onnx.NodeProto) -> str:
    return f"the node {node.name!r} is of the operator {node.op_type} of the domain {node.domain}"


def _served(domains: Collection[str]) -> str:
    named = ", ".join(sorted(domain for domain in domains if domain))
    return f"served are ONNX's own and {named}, and what MILLRACE_OPERATOR_DOMAINS adds"


def _check_external(tensor: TensorProto, name: str, sizes: Mapping[str, int]) -> None:
    said = f"{name}: the weights {tensor.name!r}"
    pairs = _pairs(tensor, name)
    if len({key for key, _ in pairs}) != len(pairs) or "location" not in dict(pairs):
        raise ValueError(f"{said} do not name one file")
    location = dict(pairs)["location"]
    try:
        file = _data_file(location, name)
    except ValueError as error:
        raise ValueError(f"{said} lie in {location!r}: they {error}") from None
    if file not in sizes:
        raise ValueError(f"{said} lie in {location!r}, which is no file of the model's folder")
    start, length = (_count(dict(pairs).get(key, "0"), key, said) for key in ("offset", "length"))
    if start + length > sizes[file]:
        raise ValueError(f"{said} end at byte {start + length} of {file}, which has {sizes[file]}")


def _pairs(tensor: TensorProto, name: str) -> list[tuple[str, str]]:
    try:
        return [(pair.key, pair.value) for pair in tensor.external_data]
    except UnicodeDecodeError:
        raise ValueError(f"{name}: the weights {tensor.name!r} lie in a file whose name is no text") from None


def _data_file(location: str, graph: str) -> str:
    """Relative to the version's folder; a graph means its own."""
    return (PurePosixPath(graph).parent / inside(location)).as_posix()


def _count(text: str, key: str, said: str) -> int:
    """ONNX writes numbers as decimal digits."""
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise ValueError(f"{said}: {key} is {text[:40]!r}, which is no number of bytes")
    return int(text)
