"""Where a model of transformers lies: a folder, or the hub, of which a copy is kept that a second try goes on with."""

from pathlib import Path

from millrace.exporting import trust
from millrace.exporting.order import Order

WEIGHTS = ("*.safetensors",)
PICKLED = ("*.bin",)
FILES = ("*.json", "*.txt", "*.model", "*.jinja", "LICENSE*")
CODE = ("*.py",)


def locate(order: Order) -> Path:
    """The folder; of a model on the hub, once it has been downloaded. Raises ValueError with what can be done."""
    folder = Path(order.source).expanduser()
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    patterns = [*WEIGHTS, *FILES, *(PICKLED if order.trust_pickle else ()), *(CODE if order.trust_code else ())]
    try:
        return Path(snapshot_download(order.source, allow_patterns=patterns))
    except HFValidationError as error:
        raise ValueError(f"{order.source}: neither a folder nor a name on the hub: {error}") from None
    except LocalEntryNotFoundError:
        raise ValueError(
            f"{order.source}: the hub cannot be reached, and no copy of the model is here; download it where it can be "
            f"(hf download {order.source} --local-dir FOLDER), bring the folder here and export that"
        ) from None
    except HfHubHTTPError as error:
        raise ValueError(f"{order.source}: the hub refuses it: {str(error).strip().splitlines()[-1]}") from None


def weights_bytes(folder: Path, order: Order) -> int:
    """Of the model's files of weights. Raises ValueError where there are none that may be read."""
    patterns = (*WEIGHTS, *(PICKLED if order.trust_pickle else ()))
    found = sum(path.stat().st_size for pattern in patterns for path in folder.glob(pattern))
    if not found:
        pickled = any(path for pattern in PICKLED for path in folder.glob(pattern))
        raise ValueError(
            f"{folder.name}: holds no weights in .safetensors"
            + (", and .bin files are pickles, which may be any code: --trust-pickle reads them" if pickled else "")
        )
    return found


def told(order: Order, folder: Path) -> str:
    """The source for the card; of the hub's with its commit, by which its copy's folder is called."""
    on_hub = not Path(order.source).expanduser().is_dir()
    return f"{order.source}, commit {folder.name}" if on_hub else trust.told(order.source)
