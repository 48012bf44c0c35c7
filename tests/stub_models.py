"""Model folders for the stub engine."""

from pathlib import Path

import yaml


def write_stub(
    repository: Path,
    name: str = "stub",
    version: str = "1",
    slots: int = 64,
    context_length: int = 100_000,
    **options: object,
) -> Path:
    """Writes NAME/VERSION/model.yaml; `options` are the stub engine's (step_ms, poison, …)."""
    folder = repository / name / version
    folder.mkdir(parents=True)
    model = {
        "name": name,
        "task": "text-generation",
        "engine": "stub",
        "description": "sleeps instead of computing",
        "slots": slots,
        "context_length": context_length,
        "engine_options": options,
    }
    (folder / "model.yaml").write_text(yaml.safe_dump(model))
    return folder
