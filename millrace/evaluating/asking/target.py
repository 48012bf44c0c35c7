"""Which version of which model is asked, and by what it is known again."""

from dataclasses import dataclass, field

from millrace.client import AsyncClient
from millrace.errors import Code, MillraceError, NotFound
from millrace.tensors import TensorSpec
from millrace.v1.fleet_pb2 import Model


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    model: str
    version: str
    task: str
    digest: str = ""
    """Of the version's files; empty where the service does not tell it."""
    inputs: tuple[TensorSpec, ...] = field(default=())
    """Of a model of tensors, with the rows' dimension."""

    def __str__(self) -> str:
        return f"{self.model}/{self.version}"


async def find_target(client: AsyncClient, model: str, version: str) -> Target:
    """`version` empty: the one that a call without a version gets. Raises NotFound where it is not served."""
    served = await client.models()
    found = next((one for one in served if one.name == model), None)
    if found is None:
        names = ", ".join(sorted(one.name for one in served)) or "nothing"
        raise NotFound(f"there is no model {model!r}; served are: {names}", reason="MODEL_UNKNOWN")
    if version and version not in found.versions:
        has = ", ".join(found.versions)
        raise NotFound(f"{model} has no version {version!r}; it has: {has}", reason="MODEL_UNKNOWN")
    version, digest = await _described(client, found, version)
    return Target(
        model=model, version=version, task=found.task, digest=digest, inputs=await _inputs(client, model, version)
    )


async def _described(client: AsyncClient, model: Model, version: str) -> tuple[str, str]:
    """The version that answers, and its digest."""
    try:
        answer = await client.model_config(model.name, version)
    except MillraceError as error:
        if error.code is not Code.UNIMPLEMENTED:
            raise
        return version or _latest(model), ""
    numbers = answer.config.version_policy.specific.versions
    digest = answer.config.parameters["digest"].string_value if "digest" in answer.config.parameters else ""
    return version or (str(max(numbers)) if numbers else _latest(model)), digest


def _latest(model: Model) -> str:
    return max(model.versions, key=lambda name: (name.isdecimal(), int(name) if name.isdecimal() else 0, name))


async def _inputs(client: AsyncClient, model: str, version: str) -> tuple[TensorSpec, ...]:
    """None for a model that takes no tensors."""
    try:
        metadata = await client.model_metadata(model, version)
    except MillraceError as error:
        if error.code not in (Code.UNIMPLEMENTED, Code.FAILED_PRECONDITION):
            raise
        return ()
    return tuple(TensorSpec(one.name, one.datatype, tuple(one.shape)) for one in metadata.inputs)
