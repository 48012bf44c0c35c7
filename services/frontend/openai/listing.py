"""/v1/models: what this API can be asked for."""

from typing import Any

from millrace.errors import NotFound
from millrace.queue import ModelEntry
from services.frontend.models import Models
from services.frontend.openai.exchange import Exchange

TASKS = frozenset({"generate", "embed"})
OWNER = "millrace"


async def list_models(models: Models, exchange: Exchange) -> None:
    """Each name once, with the versions that are known of it."""
    entries = await _served(models, exchange)
    names = dict.fromkeys(entry.name for entry in entries)
    await exchange.reply({"object": "list", "data": [_describe(name, entries) for name in names]})


async def show_model(models: Models, exchange: Exchange) -> None:
    """Raises NotFound."""
    asked = exchange.request.path_params["model"]
    entries = await _served(models, exchange)
    found = next((entry for entry in entries if asked in (entry.name, str(entry.model))), None)
    if found is None:
        raise NotFound(f"there is no model {asked}", reason="MODEL_UNKNOWN")
    await exchange.reply(_describe(found.name, entries))


async def _served(models: Models, exchange: Exchange) -> list[ModelEntry]:
    """To whom asks."""
    policy = exchange.caller.policy
    return [entry for entry in await models.models() if TASKS & set(entry.tasks) and policy.allows(entry.name)]


def _describe(name: str, entries: list[ModelEntry]) -> dict[str, Any]:
    """The registry does not know when a model was made."""
    versions = [entry for entry in entries if entry.name == name]
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": OWNER,
        "max_model_len": max(entry.context_length for entry in versions) or None,
        "tasks": sorted({task for entry in versions for task in entry.tasks}),
        "versions": [entry.version for entry in versions],
    }
