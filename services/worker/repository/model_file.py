"""model.yaml: what a version of a model says of itself, and how it is to be served. docs/models.md explains it."""

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
"""Of a model and of a version."""
MOST_WARMUPS = 64


def inside(path: str) -> str:
    """The path as it is. Raises ValueError where it is absolute or leads out of the model's folder."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise ValueError("must lie inside the model's folder")
    return path


InsidePath = Annotated[str, AfterValidator(inside)]
AtLeastOne = Annotated[int, Field(ge=1)]


def problems(error: ValidationError) -> str:
    """What is wrong with which keys, as one sentence."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}".removeprefix(": ") for e in error.errors())


class Frozen(BaseModel):
    """A part of a file in YAML: a key that is not known is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class GraphEntry(Frozen):
    """Where the graph for one kind of device lies."""

    path: InsidePath
    """Relative to model.yaml: the graph's file; for the generation engine the folder of genai_config.json, model.onnx
    and tokenizer.json."""
    precision: str = "unknown"


class DefaultFields(Frozen):
    """What a request gets for a field that it leaves unset; None is the neutral value."""

    temperature: float | None = Field(default=None, ge=0)
    top_k: int | None = Field(default=None, ge=0)
    top_p: float | None = Field(default=None, gt=0, le=1)
    min_p: float | None = Field(default=None, ge=0, lt=1)
    max_tokens: int | None = Field(default=None, ge=1)


class Batching(Frozen):
    """How requests of tensors share a run."""

    max_rows: int = Field(default=32, ge=1, le=65_536, description="of one run")
    preferred_rows: list[AtLeastOne] = Field(
        default_factory=list, description="numbers of rows that a run had better have; empty: any"
    )
    sessions: int = Field(default=1, ge=1, le=32, description="runs at once, each on its share of the threads")
    delay_ms: float = Field(default=0.0, ge=0, le=10_000, description="what a batch that is not full waits for more")
    buckets: dict[str, AtLeastOne | Annotated[list[AtLeastOne], Field(min_length=1)]] = Field(
        default_factory=dict, description="by the graph's name of a dimension: sizes, or a multiple, to pad to"
    )
    padding: dict[str, bool | int | float | str] = Field(
        default_factory=dict, description="by input: what it is padded with, 0 where nothing is said"
    )


class ModelFile(Frozen):
    """model.yaml."""

    name: str = Field(pattern=NAME)
    task: str = Field(pattern=r"^[a-z][a-z0-9-]*$")
    engine: str = Field(pattern=NAME, description="an entry point of group millrace.engines")
    description: str = ""
    licence: str = ""
    graphs: dict[Literal["cpu", "cuda"], GraphEntry] = Field(default_factory=dict)
    slots: int = Field(default=32, ge=1, le=1024, description="how many sequences run at once")
    context_length: int | None = Field(default=None, ge=2, description="None: the graph's own")
    prefill_chunk_tokens: int = Field(default=128, ge=1, description="prompts are cut at multiples of it")
    step_tokens: int = Field(default=0, ge=0, description="prompt tokens of one step; 0: one chunk")
    continuation: Literal["prefill", "replay"] = Field(
        default="prefill",
        description="how the tokens that a job's log holds come into the cache: in chunks, or one by one as they came",
    )
    weights: Literal["stored", "int8", "int4"] = Field(
        default="stored", description="how a decoder's matrices are held and multiplied on a CPU: int8 and int4 at load"
    )
    prefix_cache_bytes: int = Field(default=256 << 20, ge=0, description="for prompts that begin alike; 0: none")
    kv_cache_bytes: int | None = Field(
        default=None, ge=1, description="of PagedAttention's blocks; None: a whole context for each slot"
    )
    arena_bytes: int | None = Field(
        default=None, ge=1, description="of a GPU, what weights and runs may take beside the KV cache; None: all"
    )
    cuda_graphs: bool = Field(default=False, description="whether a GPU replays PagedAttention's decode runs")
    speculative_tokens: int = Field(default=4, ge=0, le=64, description="guessed ahead where it pays; 0: none")
    memory_bytes: int | None = Field(
        default=None, ge=0, description="what the model holds once it is loaded; None: it is estimated"
    )
    warmup: list[dict[str, Any]] = Field(
        default_factory=list,
        max_length=MOST_WARMUPS,
        description="requests that are run before the model is served: the task of a SubmitJobRequest, as JSON has it",
    )
    response_cache: bool = Field(default=False, description="whether equal requests get the answer that the first got")
    labels: dict[str, InsidePath] = Field(
        default_factory=dict, description="by output: a file that names its values, one a line"
    )
    classes: dict[str, Any] = Field(
        default_factory=dict, description="which output has classes' scores; checked by the task itself"
    )
    embedding: dict[str, Any] = Field(
        default_factory=dict, description="how embeddings are made of an output; checked by the task itself"
    )
    text: dict[str, Any] | None = Field(
        default=None, description="how the task is prepared from texts; checked by the task itself"
    )
    image: dict[str, Any] | None = Field(
        default=None, description="how the task is prepared from images; checked by the task itself"
    )
    sound: dict[str, Any] | None = Field(
        default=None, description="how the task is prepared from sounds; checked by the task itself"
    )
    defaults: DefaultFields = DefaultFields()
    batching: Batching = Batching()
    engine_options: dict[str, Any] = Field(default_factory=dict, description="the engine's own business")

    @model_validator(mode="after")
    def _check(self) -> "ModelFile":
        if self.engine in ("generation", "batch") and not self.graphs:
            raise ValueError(f"graphs: the {self.engine} engine needs at least one")
        if 0 < self.step_tokens < self.prefill_chunk_tokens:
            raise ValueError("step_tokens: must hold at least one chunk of prefill_chunk_tokens")
        return self
