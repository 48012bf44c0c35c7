"""MODULE:FUNCTION and FILE.py:FUNCTION: the user's own code, which makes a model."""

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any


def is_function(source: str) -> bool:
    """Whether the source names a function, and no file of such a name is there."""
    module, colon, function = source.rpartition(":")
    return bool(colon) and bool(module) and function.isidentifier() and not Path(source).exists()


def call(source: str) -> Any:
    """What the function answers, called without arguments. Raises ValueError where there is none; what its code raises
    goes through as it is."""
    module_name, _, function_name = source.rpartition(":")
    module = _load_file(Path(module_name)) if module_name.endswith(".py") else _load_module(module_name)
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"{source}: {module_name} has no function {function_name}")
    return function()


def _load_module(name: str) -> Any:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ValueError(
                f"there is no module {name}: give FILE.py:FUNCTION, or run where it can be imported"
            ) from None
        raise


def _load_file(path: Path) -> Any:
    """Under a name that pickles and dataclasses can find again; files beside it can be imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise ValueError(f"{path}: there is no such file")
    if str(path.parent.absolute()) not in sys.path:
        sys.path.insert(0, str(path.parent.absolute()))
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
