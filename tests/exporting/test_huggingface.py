"""From transformers to a served model: small models of random weights."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from PIL import Image

from millrace.exporting import called
from millrace.exporting.order import Device, Dialect, Precision
from millrace.exporting.sources.huggingface import twin
from millrace.exporting.sources.huggingface.architecture import read
from tests.exporting.orders import described, exported, loaded, names, needs_torch, order
from tests.parity import originals
from tests.parity.families import Family
from tests.worker.tasks.texts import classified, classify_work, embedded, tokenizer

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(300)]
SHAPE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
TEXTS = ("the cat sat", "on the river ran stones", "!")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    originals.write(Family(config="LlamaConfig", fields={"num_hidden_layers": 2}), folder)
    return folder


def write_bert(folder: Path, kind: str, **fields: Any) -> Any:
    """A folder with its tokenizer; answers transformers' model."""
    import torch
    import transformers

    torch.manual_seed(2)
    config = transformers.BertConfig(vocab_size=64, max_position_embeddings=48, **SHAPE, **fields)
    model = getattr(transformers, kind)(config).eval()
    model.save_pretrained(folder)
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer(), **special).save_pretrained(folder)
    return model


def write_config(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("LlamaForCausalLM", "text-generation"),
        ("BertForSequenceClassification", "text-classification"),
        ("BertModel", "text-embedding"),
        ("ViTForImageClassification", "image-classification"),
        ("Wav2Vec2ForCTC", "speech-recognition"),
    ],
)
def test_an_architecture_says_what_it_is_for(tmp_path: Path, name: str, task: str) -> None:
    assert read(write_config(tmp_path, architectures=[name]), order(tmp_path, tmp_path)).task == task


@pytest.mark.parametrize("name", ["MambaForCausalLM", "T5ForConditionalGeneration", "Nothing", None])
def test_an_architecture_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path, name: str | None) -> None:
    write_config(tmp_path, architectures=[name] if name else None)
    with pytest.raises(ValueError, match=r"LlamaForCausalLM.*ForSequenceClassification"):
        read(tmp_path, order(tmp_path, tmp_path))


@needs_torch
def test_weights_in_a_pickle_are_not_read_unasked(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match="--trust-pickle"):
        exported(write_config(tmp_path, architectures=["BertModel"]), tmp_path / "models")


@needs_torch
def test_a_decoder_is_built_compared_and_loaded(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("the stop, the end\n\n")
    made = exported(llama, tmp_path / "models", samples=tmp_path / "texts.txt")
    given = [one.given for one in made.parity.comparisons]
    assert given[:4] == ["1 × 1", "2 × 9", "3 × 40", "greedy, 24"]
    assert given[4].startswith("text 1, ")
    assert (made.parity.agreement, made.parity.relative < 1e-4) == (1, True)
    assert described(made)["engine"] == "generation"
    assert {"genai_config.json", "tokenizer.json", "model.onnx.data", "SHA256SUMS"} <= names(made.folder)
    assert str(llama).encode() not in (made.folder / "model.onnx").read_bytes()
    assert loaded(tmp_path / "models").signature.outputs == ()


@needs_torch
@pytest.mark.parametrize("precision", [Precision.FP16, Precision.INT4])
def test_weights_of_fewer_bits_are_smaller_and_measured(llama: Path, tmp_path: Path, precision: Precision) -> None:
    made = exported(llama, tmp_path / "models", precision=precision)
    assert made.parity.relative > 1e-5
    assert (made.folder / "model.onnx.data").stat().st_size < 0.8 * (llama / "model.safetensors").stat().st_size
    loaded(tmp_path / "models")


@needs_torch
def test_paged_attention_is_compared_by_a_twin_for_the_cpu_with_the_same_weights(llama: Path, tmp_path: Path) -> None:
    paged: dict[str, Any] = {"dialect": Dialect.PAGED, "device": Device.CUDA, "precision": Precision.FP16}
    made = exported(llama, tmp_path / "models", **paged)
    assert list(described(made)["graphs"]) == ["cuda"]
    assert "block_table" in (made.folder / "genai_config.json").read_text()
    assert len(made.parity.comparisons) == 4
    assert "the published graph itself was not run" in (made.folder / "README.md").read_text()


def write_weights(folder: Path, values: npt.NDArray[Any]) -> Path:
    folder.mkdir()
    graph = helper.make_graph([], "g", [], [], [numpy_helper.from_array(values, "norm")])
    onnx.save(helper.make_model(graph), folder / "model.onnx")
    return folder


def test_a_twin_has_the_same_weights_or_the_graph_is_refused(tmp_path: Path) -> None:
    values = np.array([1 / 3, 2], np.float32)
    ours = write_weights(tmp_path / "ours", values.astype(np.float16))
    twin.check_weights(ours, write_weights(tmp_path / "same", values))
    with pytest.raises(ValueError, match="norm are not those"):
        twin.check_weights(ours, write_weights(tmp_path / "other", values + 1))


@needs_torch
def test_quantised_weights_for_a_gpu_are_not_published_unchecked(llama: Path, tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("there is a GPU to compare them on")
    with pytest.raises(ValueError, match="--unchecked"):
        exported(llama, tmp_path / "models", device=Device.CUDA, precision=Precision.INT4)


@needs_torch
def test_a_text_classifier_is_served_with_its_labels(tmp_path: Path) -> None:
    labels = {0: "bad", 1: "fine", 2: "good"}
    write_bert(tmp_path / "original", "BertForSequenceClassification", id2label=labels)
    made = exported(tmp_path / "original", tmp_path / "models")
    assert (made.folder / "labels.txt").read_text().split() == list(labels.values())
    assert described(made)["text"] == {"max_tokens": 48, "truncate": True}
    assert "config.json" not in names(made.folder)
    assert loaded(tmp_path / "models").signature.tasks == ("infer", "classify")


@needs_torch
def test_an_embedder_gives_what_transformers_gives(tmp_path: Path) -> None:
    """Pooled as sentence-transformers' files beside it say: by the first token, and not normalised."""
    import torch

    model = write_bert(tmp_path / "original", "BertModel")
    modules = [{"type": "sentence_transformers.models.Transformer", "path": ""}]
    modules.append({"type": "sentence_transformers.models.Pooling", "path": "1_Pooling"})
    (tmp_path / "original" / "modules.json").write_text(json.dumps(modules))
    (tmp_path / "original" / "1_Pooling").mkdir()
    (tmp_path / "original" / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    made = exported(tmp_path / "original", tmp_path / "models")
    assert {"modules.json", "1_Pooling/config.json"} <= names(made.folder)
    found = embedded(loaded(tmp_path / "models"), TEXTS)
    with torch.inference_mode():
        for text, vector in zip(TEXTS, found, strict=True):
            ids = torch.tensor([tokenizer().encode(text).ids])
            expected = np.asarray(model(input_ids=ids).last_hidden_state[0, 0])
            np.testing.assert_allclose(vector, expected, atol=1e-5)


@needs_torch
def test_a_module_that_no_worker_runs_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path / "original", "BertModel")
    modules = [{"type": "sentence_transformers.models.Dense", "path": "2_Dense"}]
    (tmp_path / "original" / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="Dense is not served"):
        exported(tmp_path / "original", tmp_path / "models")


@needs_torch
@pytest.mark.parametrize(
    "processor",
    [
        {"size": {"height": 16, "width": 16}},
        {
            "size": {"shortest_edge": 20},
            "do_center_crop": True,
            "crop_size": {"height": 16, "width": 16},
            "resample": 3,
        },
    ],
    ids=["stretched", "cropped"],
)
def test_an_image_classifier_says_what_transformers_says(tmp_path: Path, processor: dict[str, Any]) -> None:
    import torch
    import transformers

    torch.manual_seed(3)
    config = transformers.ViTConfig(image_size=16, patch_size=8, id2label={0: "no", 1: "yes"}, **SHAPE)
    model = transformers.ViTForImageClassification(config).eval()
    model.classifier.weight.data.mul_(50)
    model.save_pretrained(tmp_path / "original")
    prepare = transformers.CLIPImageProcessor(**({"do_center_crop": False} | processor))
    prepare.save_pretrained(tmp_path / "original")
    exported(tmp_path / "original", tmp_path / "models")
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8))
    file = io.BytesIO()
    picture.save(file, "PNG")
    engine = loaded(tmp_path / "models")
    found = classified(engine, classify_work(image=file.getvalue()))
    with torch.inference_mode():
        expected = model(**prepare(picture, return_tensors="pt")).logits.softmax(-1)[0]
    assert found == pytest.approx({"no": float(expected[0]), "yes": float(expected[1])}, abs=1e-3)


@needs_torch
def test_a_recogniser_of_speech_is_served_with_its_symbols(tmp_path: Path) -> None:
    import transformers

    sizes = {"conv_dim": (16, 16), "conv_stride": (8, 8), "conv_kernel": (8, 8), "num_conv_pos_embeddings": 16}
    config = transformers.Wav2Vec2Config(vocab_size=5, num_conv_pos_embedding_groups=2, **sizes, **SHAPE)
    transformers.Wav2Vec2ForCTC(config).eval().save_pretrained(tmp_path / "original")
    transformers.Wav2Vec2FeatureExtractor(do_normalize=True).save_pretrained(tmp_path / "original")
    symbols = {"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4}
    (tmp_path / "original" / "vocab.json").write_text(json.dumps(symbols))
    made = exported(tmp_path / "original", tmp_path / "models")
    assert (made.folder / "labels.txt").read_text().split() == list(symbols)
    assert described(made)["sound"]["normalise"] is True
    assert loaded(tmp_path / "models").signature.tasks == ("infer", "transcribe")


def test_functions_of_a_package_can_be_named() -> None:
    assert called.is_function("package.module:make")
    assert not called.is_function("owner/name")
