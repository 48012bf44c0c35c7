"""The frameworks that models come from, and which of them a source is of."""

from collections.abc import Callable
from pathlib import Path

from millrace.exporting import called
from millrace.exporting.built import Source
from millrace.exporting.order import Order

FUNCTION = "function"
SOURCES = ("huggingface", "torch", "tensorflow", "sklearn")
PICKLES = (".pt", ".pth", ".bin", ".ckpt")
ENDINGS = {
    ".pt2": "torch",
    ".keras": "tensorflow",
    ".h5": "tensorflow",
    ".joblib": "sklearn",
    ".pkl": "sklearn",
    ".pickle": "sklearn",
}
SAVED_MODEL = "saved_model.pb"
CONFIG = "config.json"


def choose(order: Order) -> Source:
    """By `--kind`, or by what lies there. Raises ValueError where nothing here can read it."""
    kind = order.kind or recognise(order.source)
    if kind not in _OPENERS:
        raise ValueError(f"--kind {kind} is not one of {', '.join(SOURCES)}")
    return _OPENERS[kind]()


def recognise(source: str) -> str:
    """The kind of a source. Raises ValueError."""
    path = Path(source)
    if path.is_dir():
        return _recognise_folder(path)
    if called.is_function(source):
        return FUNCTION
    if path.suffix in PICKLES:
        raise ValueError(
            f"{path.name}: such a file holds weights, or code in a pickle, and not what they are the weights of; write "
            "a function that makes the module and loads them, torch.load(…, weights_only=True): FILE.py:FUNCTION"
        )
    if path.suffix in ENDINGS:
        if not path.is_file():
            raise ValueError(f"{source}: there is no such file")
        return ENDINGS[path.suffix]
    if path.exists() or source.startswith((".", "/", "~")) or source.count("/") > 1:
        raise ValueError(f"{source}: {'nothing here reads it' if path.exists() else 'there is no such file'}; {KNOWN}")
    return "huggingface"


KNOWN = (
    "known are a folder of transformers, a model's name on the hub, MODULE:FUNCTION, .pt2, a SavedModel, .keras, .h5, "
    ".joblib and .pkl"
)


def _recognise_folder(path: Path) -> str:
    if (path / SAVED_MODEL).is_file():
        return "tensorflow"
    if (path / CONFIG).is_file():
        return "huggingface"
    raise ValueError(f"{path}: holds neither {CONFIG} of transformers nor {SAVED_MODEL}; {KNOWN}")


def _function() -> Source:
    from millrace.exporting.sources.function import Function

    return Function()


def _huggingface() -> Source:
    from millrace.exporting.sources.huggingface import HuggingFace

    return HuggingFace()


def _torch() -> Source:
    from millrace.exporting.sources.torch import Torch

    return Torch()


def _tensorflow() -> Source:
    from millrace.exporting.sources.tensorflow import TensorFlow

    return TensorFlow()


def _sklearn() -> Source:
    from millrace.exporting.sources.sklearn import Sklearn

    return Sklearn()


_OPENERS: dict[str, Callable[[], Source]] = {
    FUNCTION: _function,
    "huggingface": _huggingface,
    "torch": _torch,
    "tensorflow": _tensorflow,
    "sklearn": _sklearn,
}
