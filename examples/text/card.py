"""The model card: `README.md` beside the model's versions, `card_template.md` filled in with what was measured."""

from pathlib import Path

from examples.text import evaluate, tokenizer
from examples.text.measure import Measures

PROMPTS = ("class Foo(", "import os\nimport sys\n\ndef main(", "for i in range(", "def ")

SAMPLE_TOKENS = 96
TEMPLATE = Path(__file__).with_name("card_template.md")


def write(folder: Path, measures: Measures, path: Path) -> None:
    """Write the card of the model shipped in `folder` to `path`."""
    facts = measures.facts()
    samples = "\n".join(f"```python\n{sample}\n```\n" for sample in _samples(folder))
    text = TEMPLATE.read_text().format(
        **facts, rows=_rows(measures), comparison=_comparison(measures), samples=samples, sample_tokens=SAMPLE_TOKENS
    )
    path.write_text(text)


def _samples(folder: Path) -> list[str]:
    graph, words = evaluate.Graph(folder), tokenizer.load(folder)
    samples = []
    for prompt in PROMPTS:
        ids = words.encode(prompt).ids
        made = list(graph.generate(ids, max_tokens=SAMPLE_TOKENS, temperature=0.8, top_p=0.95))
        samples.append(f"{prompt}▸{words.decode(made)}".rstrip())
    return samples


def _rows(measures: Measures) -> str:
    rows = [f"| trigram | {measures.trigram.perplexity:.2f} | {measures.trigram.bits_per_byte:.3f} | | |"]
    for storage, measured in measures.graphs.items():
        name = f"{storage} (shipped)" if storage == measures.storage else storage
        result, size_mb = measured.score, measured.size_bytes / 1e6
        rows.append(
            f"| {name} | {result.perplexity:.2f} | {result.bits_per_byte:.3f} | {measured.drift:.1e} | {size_mb:.1f} |"
        )
    return "\n".join(rows)


def _comparison(measures: Measures) -> str:
    exact = measures.graphs["fp32"].score.perplexity
    effects = ", ".join(
        f"{storage} {measured.score.perplexity / exact - 1:+.2%}"
        for storage, measured in measures.graphs.items()
        if storage != "fp32"
    )
    return (
        f"Effect of the storage on the perplexity: {effects}. The greedy text of the fp32 graph with its cache is\n"
        f"the PyTorch model's on {measures.greedy_equal} of {measures.greedy_prompts} prompts."
    )
