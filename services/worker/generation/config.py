"""What the engine needs to know of a model: genai_config.json and model.yaml → `ModelConfig`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from millrace.engine import EngineContext
from services.worker import untrusted
from services.worker.generation.slot.quantise import Scheme

CONFIG_FILE = "genai_config.json"
MOST_SCORED = 256
"""Tokens of a prompt whose log-probabilities one result may hold."""
Count = Annotated[int, Field(ge=1, le=1 << 24)]
TokenId = Annotated[int, Field(ge=0)]
Pattern = Annotated[str, Field(pattern="^[^%]*%d[^%]*$")]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """A decoder graph in onnxruntime-genai's directory format. Port patterns hold one %d, the layer."""

    graph: Path
    tokenizer: Path
    layers: int
    kv_heads: int
    head_size: int
    vocabulary_size: int
    context_length: int
    bos_token_id: int | None
    eos_token_ids: tuple[int, ...]
    input_ids: str
    position_ids: str | None = None
    """Of models that learn an embedding of each position."""
    past_key: str
    past_value: str
    logits: str
    present_key: str
    present_value: str
    is_paged: bool = False
    """Whether its attention is PagedAttention over blocks, rather than GroupQueryAttention over rows."""

    def caches(self) -> list[tuple[str, str]]:
        """The graph's (past, present) ports, key and value of each layer in turn."""
        patterns = ((self.past_key, self.present_key), (self.past_value, self.present_value))
        return [(past % layer, present % layer) for layer in range(self.layers) for past, present in patterns]


@dataclass(frozen=True, slots=True, kw_only=True)
class Defaults:
    """What a request gets for a field that it leaves unset. `max_tokens` None: up to the context's end."""

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A decoder and how it is served."""

    decoder: DecoderConfig
    slots: int
    context_length: int
    prefill_chunk_tokens: int
    step_tokens: int
    replays: bool
    """Whether a continued completion's logged tokens are decoded again rather than prefilled."""
    weights: Scheme | None
    """What the matrices are made into at load; None: they stay as they are stored."""
    prefix_cache_bytes: int
    kv_cache_bytes: int | None
    """Of blocks, where there are any; None: a whole context for each slot."""
    cuda_graphs: bool
    arena_bytes: int | None
    """Of a GPU, what weights and runs may take beside the KV cache; None: whatever there is."""
    speculative_tokens: int
    """How many tokens at most are guessed ahead; 0: none, as always where continuations are replayed to the bit."""
    defaults: Defaults

    @property
    def scored_chunk_tokens(self) -> int:
        """Tokens of a prompt that are scored in one run; with the first one a result then holds `MOST_SCORED`."""
        return min(self.prefill_chunk_tokens, MOST_SCORED - 1)

    @property
    def longest_run(self) -> int:
        """Of how many tokens at most the logits of each are wanted in one run."""
        return max(self.scored_chunk_tokens, self.speculative_tokens + 1)


def read(context: EngineContext) -> ModelConfig:
    """Raises ValueError where the files lack something or contradict each other."""
    graphs = context.config["graphs"]
    if context.device not in graphs:
        raise ValueError(
            f"model.yaml names no graph for {context.device}: it has {', '.join(sorted(graphs)) or 'none'}"
        )
    decoder = read_decoder(context.folder / graphs[context.device]["path"])
    length = context.config["context_length"] or decoder.context_length
    if length > decoder.context_length:
        raise ValueError(f"context_length {length} is more than the graph's {decoder.context_length}")
    replays, weights = context.config["continuation"] == "replay", context.config["weights"]
    if weights != "stored" and context.device != "cpu":
        raise ValueError(f"weights: {weights} is for the CPU; on {context.device} name a graph that holds such weights")
    return ModelConfig(
        decoder=decoder,
        slots=context.config["slots"],
        context_length=length,
        prefill_chunk_tokens=context.config["prefill_chunk_tokens"],
        step_tokens=context.config["step_tokens"],
        replays=replays,
        weights=None if weights == "stored" else Scheme(weights),
        prefix_cache_bytes=context.config["prefix_cache_bytes"],
        kv_cache_bytes=context.config["kv_cache_bytes"],
        cuda_graphs=context.config["cuda_graphs"],
        arena_bytes=context.config["arena_bytes"],
        speculative_tokens=0 if replays else context.config["speculative_tokens"],
        defaults=Defaults(**{k: v for k, v in context.config["defaults"].items() if v is not None}),
    )


class _Read(BaseModel):
    """A part of genai_config.json; what else stands there is not ours."""

    model_config = ConfigDict(frozen=True, strict=True)


class _Inputs(_Read):
    input_ids: str
    position_ids: str | None = None
    past_key_names: Pattern
    past_value_names: Pattern
    block_table: str | None = None


class _Outputs(_Read):
    logits: str
    present_key_names: Pattern
    present_value_names: Pattern


class _Decoder(_Read):
    filename: str
    num_hidden_layers: Count
    num_key_value_heads: Count
    head_size: Count
    inputs: _Inputs
    outputs: _Outputs


class _Model(_Read):
    decoder: _Decoder
    vocab_size: Count
    context_length: Count
    bos_token_id: TokenId | None = None
    eos_token_id: TokenId | list[TokenId] | None = None

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        if self.eos_token_id is None:
            return ()
        return tuple(self.eos_token_id) if isinstance(self.eos_token_id, list) else (self.eos_token_id,)


class _File(_Read):
    model: _Model


def read_decoder(folder: Path) -> DecoderConfig:
    """Reads genai_config.json, as onnxruntime-genai's model builder 0.18 writes it."""
    try:
        model = _File.model_validate(untrusted.read_json(folder / CONFIG_FILE)).model
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ValueError(f"{CONFIG_FILE}: {'; '.join(problems)}") from None
    if strangers := [token for token in (model.bos_token_id or 0, *model.eos_token_ids) if token >= model.vocab_size]:
        raise ValueError(f"{CONFIG_FILE}: token {strangers[0]} is not below vocab_size, {model.vocab_size}")
    return _decoder(folder, model, model.decoder)


def _decoder(folder: Path, model: _Model, decoder: _Decoder) -> DecoderConfig:
    return DecoderConfig(
        graph=folder / decoder.filename,
        tokenizer=folder / "tokenizer.json",
        layers=decoder.num_hidden_layers,
        kv_heads=decoder.num_key_value_heads,
        head_size=decoder.head_size,
        vocabulary_size=model.vocab_size,
        context_length=model.context_length,
        bos_token_id=model.bos_token_id,
        eos_token_ids=model.eos_token_ids,
        input_ids=decoder.inputs.input_ids,
        position_ids=decoder.inputs.position_ids,
        past_key=decoder.inputs.past_key_names,
        past_value=decoder.inputs.past_value_names,
        logits=decoder.outputs.logits,
        present_key=decoder.outputs.present_key_names,
        present_value=decoder.outputs.present_value_names,
        is_paged=decoder.inputs.block_table is not None,
    )
