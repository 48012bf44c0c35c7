"""What makes an embedding of a graph's output: model.yaml's `embedding` → `EmbeddingFields` → `Pooling`.

    embedding: {output: last_hidden_state, pooling: mean, normalise: true}

What is left out is taken from sentence-transformers' own files, modules.json and what that names, where they lie beside
the graph. Where they do not, states [rows, tokens, values] are pooled by their mean over a text's tokens, outputs
[rows, values] are taken as they are, and either is brought to length 1.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from millrace.engine import EngineContext
from services.worker import untrusted
from services.worker.batch.graph import Array, Port, Ports
from services.worker.repository.model_file import Frozen, inside, problems
from services.worker.tasks.labels import FLOATS

Vector = npt.NDArray[np.float32]
Mode = Literal["mean", "cls", "last", "max"]
MODULES_FILE = "modules.json"
USUAL_OUTPUTS = ("sentence_embedding", "last_hidden_state", "token_embeddings")
"""Of which the first is taken where nothing is said and a graph has several."""
MODES: dict[str, Mode] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
    "pooling_mode_max_tokens": "max",
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
    "max": "max",
}
"""As sentence-transformers names them: a switch for each, or one name."""
LEAST_LENGTH = 1e-12


class EmbeddingFields(Frozen):
    """`embedding` of model.yaml."""

    output: str | None = Field(default=None, description="None: the only one of floats, or the one of a usual name")
    pooling: Mode | None = Field(default=None, description="of the states of a text's tokens; cls: of the first")
    normalise: bool | None = Field(default=None, description="whether embeddings are brought to length 1")
    dimensions: int | None = Field(default=None, ge=1, description="the first so many values; None: all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooling:
    """From an output's row to an embedding."""

    output: Port
    mode: Mode
    normalise: bool
    dimensions: int | None

    def __call__(self, row: Array, tokens: int) -> Vector:
        """A row of the output, and how many tokens the text has; what lies behind them is padding."""
        vector: Vector = (row if row.ndim == 1 else _pool(row[:tokens], self.mode)).astype(np.float32)
        vector = vector[: self.dimensions]
        if self.normalise:
            vector = vector / np.float32(max(float(np.linalg.norm(vector)), LEAST_LENGTH))
        return vector


def read(context: EngineContext, ports: Ports) -> Pooling:
    """Raises ValueError, naming the key."""
    try:
        fields = EmbeddingFields.model_validate(context.config["embedding"])
    except ValidationError as error:
        raise ValueError(f"embedding.{problems(error).replace('; ', '; embedding.')}") from None
    output = _find(ports, fields.output)
    if len(output.dims) == 2 and fields.pooling is not None:
        raise ValueError(f"embedding.pooling: {output.name} has one embedding for each text already")
    mode, normalise = _read_modules(context.folder, len(output.dims) == 2)
    if fields.dimensions and isinstance(output.dims[-1], int) and fields.dimensions > output.dims[-1]:
        raise ValueError(f"embedding.dimensions: {output.name} has {output.dims[-1]}")
    return Pooling(
        output=output,
        mode=fields.pooling or mode,
        normalise=normalise if fields.normalise is None else fields.normalise,
        dimensions=fields.dimensions,
    )


def _pool(states: Array, mode: Mode) -> Array:
    """[tokens, values] → [values]."""
    if mode == "mean":
        return np.asarray(states.mean(axis=0, dtype=np.float32))
    if mode == "max":
        return np.asarray(states.max(axis=0))
    return np.asarray(states[0 if mode == "cls" else -1])


def _find(ports: Ports, name: str | None) -> Port:
    fitting = {port.name: port for port in ports.outputs if port.datatype in FLOATS and len(port.dims) in (2, 3)}
    names = list(fitting) if name is None else [name]
    if len(names) != 1:
        names = [usual for usual in USUAL_OUTPUTS if usual in fitting]
    if not names or names[0] not in fitting:
        known = ", ".join(fitting) or "none"
        raise ValueError(f"embedding.output: name one of the graph's outputs of floats, of 2 or 3 dimensions: {known}")
    return fitting[names[0]]


def _read_modules(folder: Path, pooled: bool) -> tuple[Mode, bool]:
    """How sentence-transformers pools, and whether it normalises. Raises ValueError where it does what is not known
    here; what the graph has done already need not be."""
    if not untrusted.plain_file(folder / MODULES_FILE):
        return "mean", True
    modules = {_kind(module): module for module in _list(untrusted.read_json(folder / MODULES_FILE))}
    others = modules.keys() - {"Transformer", "Pooling", "Normalize", "Dropout"}
    if others and not pooled:
        raise ValueError(f"{MODULES_FILE}: there is no {min(others)} here; export a graph that has it")
    if pooled or "Pooling" not in modules:
        return "mean", "Normalize" in modules
    return _read_mode(folder, modules["Pooling"]), "Normalize" in modules


def _read_mode(folder: Path, module: Mapping[str, Any]) -> Mode:
    name = PurePosixPath(inside(str(module.get("path")))) / "config.json"
    try:
        config = untrusted.read_json(folder / name)
    except OSError:
        raise ValueError(f"{MODULES_FILE}: {name} is missing") from None
    read = config if isinstance(config, dict) else {}
    named = read.get("pooling_mode")
    wanted = [named] if isinstance(named, str) else [key for key in read if "mode" in key and read[key] is True]
    if len(wanted) != 1 or wanted[0] not in MODES:
        raise ValueError(f"{name}: pools as {', '.join(wanted) or 'nobody says'}, which is not known here")
    return MODES[wanted[0]]


def _kind(module: Any) -> str:
    return str(module.get("type")).rpartition(".")[2] if isinstance(module, dict) else ""


def _list(read: Any) -> Sequence[Any]:
    if not isinstance(read, list):
        raise ValueError(f"{MODULES_FILE}: holds no modules")
    return read
