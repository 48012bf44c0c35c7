"""What ONNX Runtime is asked for on a GPU, up to its border."""

import pytest

from services.worker.session import PROVIDERS, _providers


@pytest.mark.parametrize(
    ("captures", "arena_bytes", "further"),
    [
        (False, None, {}),
        (True, None, {"enable_cuda_graph": "1"}),
        (False, 1 << 30, {"gpu_mem_limit": str(1 << 30)}),
        (True, 5, {"enable_cuda_graph": "1", "gpu_mem_limit": "5"}),
    ],
)
def test_a_gpu_is_asked_for_what_the_model_says(
    captures: bool, arena_bytes: int | None, further: dict[str, str]
) -> None:
    (name, options), *others = _providers("cuda", captures, arena_bytes)
    (_, usual), *rest = PROVIDERS["cuda"]
    assert (name, options, others) == ("CUDAExecutionProvider", usual | further, rest)
    assert options["arena_extend_strategy"] == "kSameAsRequested"


def test_a_cpu_has_no_arena_to_limit() -> None:
    assert _providers("cpu", True, 5) == ["CPUExecutionProvider"]
