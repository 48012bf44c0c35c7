"""What genai_config.json must say, and what it must not."""

import json
from pathlib import Path
from typing import Any

import pytest

from services.worker import repository
from services.worker.generation.config import read_decoder
from services.worker.generation.text.vocabulary import Vocabulary
from tests.models import write_model


def changed(folder: Path, *path: str, to: Any) -> Path:
    """A model's folder whose genai_config.json says something else at that place."""
    version = write_model(folder)
    file = version / "genai_config.json"
    document = json.loads(file.read_text())
    inner = document
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    file.write_text(json.dumps(document))
    return version


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("model", "decoder", "head_size"), "16", "model.decoder.head_size"),
        (("model", "decoder", "num_hidden_layers"), 0, "model.decoder.num_hidden_layers"),
        (("model", "decoder", "num_hidden_layers"), 10**12, "model.decoder.num_hidden_layers"),
        (("model", "decoder", "num_key_value_heads"), True, "model.decoder.num_key_value_heads"),
        (("model", "decoder", "inputs", "past_key_names"), "%999999999d", "model.decoder.inputs.past_key_names"),
        (("model", "decoder", "outputs", "present_key_names"), "%d%d", "model.decoder.outputs.present_key_names"),
        (("model", "decoder"), [], "model.decoder"),
        (("model",), None, "model"),
        (("model", "eos_token_id"), [1, 320], "token 320 is not below vocab_size, 320"),
        (("model", "bos_token_id"), 4_000, "token 4000 is not below vocab_size, 320"),
    ],
)
def test_a_value_that_no_graph_could_have_is_named(
    tmp_path: Path, path: tuple[str, ...], value: Any, expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        read_decoder(changed(tmp_path, *path, to=value))


@pytest.mark.parametrize(("value", "expected"), [(None, ()), (7, (7,)), ([7, 8], (7, 8))])
def test_a_model_may_end_with_no_token_with_one_or_with_several(
    tmp_path: Path, value: Any, expected: tuple[int, ...]
) -> None:
    assert read_decoder(changed(tmp_path, "model", "eos_token_id", to=value)).eos_token_ids == expected


@pytest.mark.parametrize("token_id", [1 << 24, 2**32 - 1])
def test_a_token_id_beyond_all_vocabularies_is_named_at_once(tmp_path: Path, token_id: int) -> None:
    file = write_model(tmp_path) / "tokenizer.json"
    document = json.loads(file.read_text())
    document["model"]["vocab"]["¡"] = token_id
    file.write_text(json.dumps(document))
    with pytest.raises(ValueError, match=f"the highest token id is {token_id}"):
        Vocabulary(file)


def test_a_cache_that_no_machine_has_room_for_is_named(tmp_path: Path) -> None:
    changed(tmp_path, "model", "decoder", "head_size", to=1 << 24)
    file = tmp_path / "tiny" / "1" / "model.yaml"
    file.write_text(file.read_text().replace("slots: 4", "slots: 1024"))
    with pytest.raises(ValueError, match="there is no memory for a buffer"):
        repository.load(repository.scan(tmp_path)[0][0], "cpu", threads=1)
