"""The model card: `README.md` beside the model's versions, `card_template.md` filled in with what was measured."""

from pathlib import Path
from typing import Any

from examples import record
from examples.text import evaluate, tokenizer

PROMPTS = ("class Foo(", "import os\nimport sys\n\ndef main(", "for i in range(", "def ")

SAMPLE_TOKENS = 96
TEMPLATE = Path(__file__).with_name("card_template.md")
HALVED = """
The shipped graph stores its matrices in fp16 and computes in fp32: behind each stands a Cast, which ONNX Runtime folds
when it loads the graph. The embedding and the head share one, which a Transpose turns for the Gather.
"""


def write(folder: Path, measures: dict[str, Any], path: Path) -> None:
    """Write the card of the model shipped in `folder` to `path`. Raises FileNotFoundError where a part that measures
    has not been run."""
    record.complete(measures, "corpus", "training", "quality", "storage", "candidates", "served")
    samples = "\n".join(f"```python\n{sample}\n```\n" for sample in _samples(folder))
    path.write_text(
        TEMPLATE.read_text().format(
            **facts(measures),
            rows=_rows(measures),
            comparison=_comparison(measures["quality"]),
            served=_served(measures["served"]),
            candidates="\n".join(measures["candidates"]),
            halved=HALVED if measures["storage"] == "fp16" else "",
            samples=samples,
            sample_tokens=SAMPLE_TOKENS,
        )
    )


def facts(measures: dict[str, Any]) -> dict[str, Any]:
    """The fields of the card's text, by name."""
    quality, storage = measures["quality"], measures["storage"]
    shape = quality["configuration"]
    return {
        "layers": shape["num_hidden_layers"],
        "hidden": shape["hidden_size"],
        "heads": shape["num_attention_heads"],
        "kv_heads": shape["num_key_value_heads"],
        "head_size": shape["head_dim"],
        "intermediate": shape["intermediate_size"],
        "vocabulary": shape["vocab_size"],
        "context": shape["max_position_embeddings"],
        "weights": quality["weights"],
        "python": measures["python"],
        "training": measures["training"],
        "command": measures["command"],
        "storage": storage,
        "size_mb": quality["graphs"][storage]["size_bytes"] / 1e6,
        "scored_tokens": quality["trigram"]["tokens"],
        "scored_bytes": quality["trigram"]["text_bytes"],
        **measures["corpus"],
    }


def _samples(folder: Path) -> list[str]:
    graph, words = evaluate.Graph(folder), tokenizer.load(folder)
    samples = []
    for prompt in PROMPTS:
        ids = words.encode(prompt).ids
        made = list(graph.generate(ids, max_tokens=SAMPLE_TOKENS, temperature=0.8, top_p=0.95))
        samples.append(f"{prompt}▸{words.decode(made)}".rstrip())
    return samples


def _rows(measures: dict[str, Any]) -> str:
    quality = measures["quality"]
    rows = [f"| trigram | {_costs(quality['trigram'])} | | |"]
    for storage, found in quality["graphs"].items():
        name = f"{storage} (shipped)" if storage == measures["storage"] else storage
        rows.append(f"| {name} | {_costs(found)} | {found['drift']:.1e} | {found['size_bytes'] / 1e6:.1f} |")
    return "\n".join(rows)


def _comparison(quality: dict[str, Any]) -> str:
    exact = quality["graphs"]["fp32"]["perplexity"]
    effects = ", ".join(
        f"{storage} {found['perplexity'] / exact - 1:+.2%}"
        for storage, found in quality["graphs"].items()
        if storage != "fp32"
    )
    stored = f"Effect of the storage on the perplexity: {effects}. " if effects else ""
    equal = f"{quality['greedy_equal']} of {quality['greedy_prompts']} prompts"
    return f"{stored}The greedy text of the fp32 graph with its cache is\nthe PyTorch model's on {equal}."


def _served(served: list[dict[str, Any]]) -> str:
    rows = [(f"version {one['version']}, {how}", one[how]) for one in served for how in ("alone", "served")]
    return "\n".join(f"| {name} | {one['perplexity']:.5f} | {one['bits_per_byte']:.6f} |" for name, one in rows)


def _costs(found: dict[str, Any]) -> str:
    return f"{found['perplexity']:.2f} | {found['bits_per_byte']:.3f}"
