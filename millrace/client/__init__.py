"""The Python client: `AsyncClient`, whose streams survive the death of any process.

`Client` is the same for programs without an event loop.
"""

from millrace.client.client import AsyncClient
from millrace.client.infer import Arrays, Inputs
from millrace.client.request import GenerateOptions, Prompt
from millrace.client.results import Completion, Delta, FinishReason, Part, Usage
from millrace.client.sync import Client
from millrace.client.tasks import Embeddings, Label, Segment
from millrace.client.tls import Tls

__all__ = [
    "Arrays",
    "AsyncClient",
    "Client",
    "Completion",
    "Delta",
    "Embeddings",
    "FinishReason",
    "GenerateOptions",
    "Inputs",
    "Label",
    "Part",
    "Prompt",
    "Segment",
    "Tls",
    "Usage",
]
