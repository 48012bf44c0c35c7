"""The metadata of a ScaledObject."""

import pytest

from millrace.errors import InvalidRequest
from millrace.keda.externalscaler_pb2 import ScaledObjectRef
from services.frontend.scaler.asked import Asked, parse


def asked(**metadata: str) -> Asked:
    return parse(ScaledObjectRef(scalerMetadata=metadata))


def test_a_model_is_all_that_must_be_said() -> None:
    assert asked(model="a", scalerAddress="frontend:8004") == Asked(
        models=(("a", ""),), target_wait_s=5.0, jobs_per_worker=None, keep_busy=True
    )


def test_everything_may_be_said() -> None:
    said = asked(model="a, b/2", targetWaitSeconds="0.5", targetJobsPerWorker="16", keepBusyWorkers="false")
    assert said == Asked(models=(("a", ""), ("b", "2")), target_wait_s=0.5, jobs_per_worker=16, keep_busy=False)


@pytest.mark.parametrize(
    ("field", "metadata"),
    [
        ("model", {}),
        ("model", {"model": ""}),
        ("model", {"model": "a,,b"}),
        ("model", {"model": "a/"}),
        ("targetWaitSeconds", {"model": "a", "targetWaitSeconds": "soon"}),
        ("targetWaitSeconds", {"model": "a", "targetWaitSeconds": "inf"}),
        ("targetWaitSeconds", {"model": "a", "targetWaitSeconds": "nan"}),
        ("targetWaitSeconds", {"model": "a", "targetWaitSeconds": "0"}),
        ("targetJobsPerWorker", {"model": "a", "targetJobsPerWorker": "-1"}),
        ("keepBusyWorkers", {"model": "a", "keepBusyWorkers": "yes"}),
        ("targetWaitSecond", {"model": "a", "targetWaitSecond": "5"}),
    ],
)
def test_metadata_that_mean_nothing_are_refused(field: str, metadata: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(**metadata)
    assert [violation.field for violation in caught.value.violations] == [f"scalerMetadata[{field}]"]
