"""All targets by name, and how many of the inputs each gets."""

from collections.abc import Mapping, Sequence

from tests.fuzz.child import load

TARGETS: Mapping[str, str] = {
    "generate": "tests.fuzz.requests:Generations",
    "infer": "tests.fuzz.requests:Infers",
    "submit": "tests.fuzz.requests:Submissions",
    "watch": "tests.fuzz.requests:Watches",
    "lookups": "tests.fuzz.requests:Lookups",
    "tenant": "tests.fuzz.requests:Tenants",
    "bombs": "tests.fuzz.requests:Bombs",
    "tensors": "tests.fuzz.tensors:Tensors",
    "generation": "tests.fuzz.generation:Tiny",
    "pycode": "tests.fuzz.generation:Served",
    "stub": "tests.fuzz.generation:Stub",
    "output-format": "tests.fuzz.constraints:OutputFormats",
    "chat-template": "tests.fuzz.constraints:ChatTemplates",
    "text-tensors": "tests.fuzz.text_tensors:TextTensors",
    "openai": "tests.fuzz.openai:OpenAI",
    "typed": "tests.fuzz.typed:Typed",
    "images": "tests.fuzz.images:Images",
    "sounds": "tests.fuzz.sounds:Sounds",
    "model-yaml": "tests.fuzz.folders:ModelYaml",
    "decoder-yaml": "tests.fuzz.folders:GenerationYaml",
    "genai-config": "tests.fuzz.folders:GenaiConfig",
    "tokenizer": "tests.fuzz.folders:TokenizerJson",
    "onnx": "tests.fuzz.graph_files:OnnxFile",
    "decoder-onnx": "tests.fuzz.graph_files:DecoderFile",
    "hostile": "tests.fuzz.hostile:HostileFolder",
    "merged": "tests.fuzz.merged:MergedFile",
    "task-files": "tests.fuzz.task_files:TaskFiles",
    "policy": "tests.fuzz.policies:Policy",
    "manifest": "tests.fuzz.manifests:Manifest",
    "warmup": "tests.fuzz.warmups:Warmup",
    "zip-source": "tests.fuzz.sources:ZipSource",
    "wire": "tests.fuzz.wire:Calls",
    "http": "tests.fuzz.http:Http",
    "sockets": "tests.fuzz.sockets:Sockets",
}


def shares(inputs: int, names: Sequence[str]) -> dict[str, int]:
    """So many inputs in all, divided among these targets as they ask. Raises KeyError for a name that is none."""
    wanted = {name: load(TARGETS[name]).share for name in names}
    total, given, result = sum(wanted.values()), 0, {}
    for name, share in wanted.items():
        result[name] = inputs * share // total
        given += result[name]
    result[max(wanted, key=wanted.__getitem__)] += inputs - given
    return result
