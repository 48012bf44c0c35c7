"""A version's folder, as far as its graph is concerned."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from millrace.optimizing.order import Device

MODEL_FILE = "model.yaml"
CONFIG_FILE = "genai_config.json"
ENGINES = ("batch", "generation")


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoder:
    """A decoder's ports and sizes, from genai_config.json. `past` and `present`: keys and values of each layer."""

    kv_heads: int
    head_size: int
    context_length: int
    input_ids: str
    logits: str
    past: tuple[str, ...]
    present: tuple[str, ...]
    bos_token_id: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A model's version and the graph that one device runs."""

    folder: Path
    described: Mapping[str, Any]
    """model.yaml."""
    device: Device
    graph: Path
    decoder: Decoder | None = None

    @property
    def name(self) -> str:
        return self.folder.parent.name

    @property
    def precision(self) -> str:
        return str(self.described["graphs"][self.device].get("precision", "unknown"))

    def others(self) -> list[Path]:
        """What `graphs` of model.yaml names for other devices."""
        entries = self.described["graphs"].items()
        return [(self.folder / entry["path"]).resolve() for device, entry in entries if device != self.device]


def read(folder: Path, device: Device) -> Version:
    """Raises ValueError where the folder holds nothing that can be optimised for this device."""
    folder = folder.resolve()
    described = _described(folder)
    if described["engine"] not in ENGINES:
        raise ValueError(f"{folder.name}: engine {described['engine']} is none of {', '.join(ENGINES)}")
    if device not in described["graphs"]:
        raise ValueError(f"{folder.name}: {MODEL_FILE} names no graph for {device}")
    path = (folder / described["graphs"][device]["path"]).resolve()
    if not path.is_relative_to(folder):
        raise ValueError(f"{folder.name}: graphs.{device}.path must lie inside the version's folder")
    decoder = None
    if described["engine"] == "generation":
        decoder, file = _decoder(path)
        path = path / file
    if not path.is_file():
        raise ValueError(f"{folder.name}: there is no {path.name}")
    return Version(folder=folder, described=described, device=device, graph=path, decoder=decoder)


def _described(folder: Path) -> dict[str, Any]:
    """model.yaml, or what stands for it where there is one graph alone."""
    file = folder / MODEL_FILE
    if not file.exists():
        graphs = sorted(folder.glob("*.onnx"))
        if len(graphs) != 1:
            raise ValueError(f"{folder}: has no {MODEL_FILE}, nor is there one .onnx file alone")
        entry = {"path": graphs[0].name}
        entries = {device: dict(entry) for device in ("cpu", "cuda")}
        return {"name": folder.parent.name, "task": "tensor", "engine": "batch", "graphs": entries}
    try:
        described = yaml.safe_load(file.read_text())
        entries = described["graphs"].values()
        if not isinstance(described["engine"], str) or not all(isinstance(one["path"], str) for one in entries):
            raise TypeError
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: {error}") from None
    except (KeyError, TypeError, AttributeError):
        raise ValueError(f"{file}: needs engine, and graphs with a path for each device") from None
    return dict(described)


def _decoder(folder: Path) -> tuple[Decoder, str]:
    try:
        model = json.loads((folder / CONFIG_FILE).read_text())["model"]
        part = model["decoder"]
        inputs, outputs, layers = part["inputs"], part["outputs"], range(part["num_hidden_layers"])
        if "block_table" in inputs:
            raise ValueError("its attention is PagedAttention, which is not optimised: give one of GroupQueryAttention")
        found = Decoder(
            kv_heads=part["num_key_value_heads"],
            head_size=part["head_size"],
            context_length=model["context_length"],
            input_ids=inputs["input_ids"],
            logits=outputs["logits"],
            past=_names(inputs, ("past_key_names", "past_value_names"), layers),
            present=_names(outputs, ("present_key_names", "present_value_names"), layers),
            bos_token_id=model.get("bos_token_id"),
        )
        return found, str(part["filename"])
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"{CONFIG_FILE}: {error!r}") from None


def _names(ports: Mapping[str, str], patterns: tuple[str, str], layers: range) -> tuple[str, ...]:
    return tuple(ports[pattern] % layer for layer in layers for pattern in patterns)
