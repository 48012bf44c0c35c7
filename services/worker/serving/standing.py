"""How the versions of a model stand on this worker, as the fleet is told."""

from millrace.queue import Indexed, ModelState, ModelVersion
from services.worker.serving.contents import Contents
from services.worker.serving.lifecycle import Lifecycle


def standing(name: str, contents: Contents, life: Lifecycle, idle: str) -> list[Indexed]:
    """`idle`: why a version that is in order is not served, where nothing else is known."""
    reasons = {ModelVersion(name, model.version): idle for model in contents.models(name)}
    troubles = {ModelVersion(name, version): reason for version, reason in contents.broken(name).items()}
    troubles |= {model: failure.reason for model, failure in life.failed.items() if model.name == name}
    here = [model for model in (*life.served, *life.changing) if model.name == name]
    return [
        _indexed(model, life, troubles.get(model, ""), reasons.get(model, ""))
        for model in dict.fromkeys((*reasons, *troubles, *here))
    ]


def _indexed(model: ModelVersion, life: Lifecycle, trouble: str, idle: str) -> Indexed:
    state = ModelState.READY if model in life.served else ModelState.UNAVAILABLE
    state = life.changing.get(model, state)
    reason = trouble or idle if state is ModelState.UNAVAILABLE else ""
    if state is ModelState.READY and trouble:
        reason = f"as its files were before: {trouble}"
    return Indexed(name=model.name, version=model.version, state=state, reason=reason)
