"""Millrace: large models as a service.

    async with millrace.AsyncClient("127.0.0.1:8001") as client:
        print((await client.generate_text("pycode", "def fib(n):")).text)

    with millrace.Client("127.0.0.1:8001") as client:
        print(client.infer("digits", {"x": images})["label"])

The names of the client are imported when they are first used, so that the services, which share this package, do not
load it.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from millrace.client import (
        AsyncClient,
        Client,
        Completion,
        Delta,
        Embeddings,
        FinishReason,
        Label,
        Segment,
        Tls,
        Usage,
    )
    from millrace.errors import (
        AlreadyExists,
        Code,
        DataLoss,
        Denied,
        Exhausted,
        InvalidRequest,
        JobFailed,
        MillraceError,
        NotFound,
        Unavailable,
        Violation,
    )

__all__ = [
    "AlreadyExists",
    "AsyncClient",
    "Client",
    "Code",
    "Completion",
    "DataLoss",
    "Delta",
    "Denied",
    "Embeddings",
    "Exhausted",
    "FinishReason",
    "InvalidRequest",
    "JobFailed",
    "Label",
    "MillraceError",
    "NotFound",
    "Segment",
    "Tls",
    "Unavailable",
    "Usage",
    "Violation",
]

_CLIENT = {
    "AsyncClient",
    "Client",
    "Completion",
    "Delta",
    "Embeddings",
    "FinishReason",
    "Label",
    "Segment",
    "Tls",
    "Usage",
}

if not TYPE_CHECKING:

    def __getattr__(name):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module("millrace.client" if name in _CLIENT else "millrace.errors"), name)
