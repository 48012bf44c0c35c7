"""Options that several commands have in common: a dataclass whose fields are spread over the command's own."""

import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any


def spread(kind: type[Any], command: Callable[..., None], *, last: bool = False) -> Callable[..., None]:
    """The command as typer needs it: in place of its first parameter, a `kind`, it has each of its fields. They stand
    before the command's own parameters, or `last`."""

    def called(**given: Any) -> None:
        command(kind(**{field.name: given.pop(field.name) for field in fields(kind)}), **given)

    own = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        for parameter in list(inspect.signature(command).parameters.values())[1:]
    ]
    common = [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type)
        for field in fields(kind)
        if field.default is not MISSING
    ]
    parameters = [*own, *common] if last else [*common, *own]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    called.__name__, called.__doc__ = command.__name__, command.__doc__
    return called
