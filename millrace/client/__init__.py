"""The Python client: `AsyncClient`, whose streams survive the death of any process."""

from millrace.client.client import AsyncClient
from millrace.client.request import GenerateOptions, Prompt
from millrace.client.results import Completion, Delta, FinishReason, Part, Usage

__all__ = ["AsyncClient", "Completion", "Delta", "FinishReason", "GenerateOptions", "Part", "Prompt", "Usage"]
