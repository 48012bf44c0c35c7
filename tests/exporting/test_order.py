"""What is refused before an export begins."""

from pathlib import Path
from typing import Any

import pytest

from millrace.exporting.order import Device, Dialect, Precision, check, check_precision
from tests.exporting.orders import order


@pytest.mark.parametrize(("name", "version"), [("a b", "1"), (".hidden", "1"), ("x" * 65, "1"), ("good", "1:2")])
def test_a_name_that_no_worker_serves_is_refused(tmp_path: Path, name: str, version: str) -> None:
    with pytest.raises(ValueError, match="must end in NAME/VERSION"):
        check(order("source", tmp_path, name=name, version=version))


def test_a_version_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "made" / "1").mkdir(parents=True)
    with pytest.raises(ValueError, match="never overwritten"):
        check(order("source", tmp_path))
    check(order("source", tmp_path, version="2"))


@pytest.mark.parametrize("tolerance", [0, -1e-3, float("nan"), float("inf")])
def test_a_tolerance_that_is_no_bound_is_refused(tmp_path: Path, tolerance: float) -> None:
    with pytest.raises(ValueError, match="--tolerance"):
        check(order("source", tmp_path, tolerance=tolerance))


@pytest.mark.parametrize(("field", "option"), [("samples", "samples"), ("labels", "labels"), ("files", "include")])
def test_a_file_that_is_missing_is_named_by_its_option(tmp_path: Path, field: str, option: str) -> None:
    none = tmp_path / "none"
    given: dict[str, Any] = {field: (none,) if field == "files" else none}
    with pytest.raises(ValueError, match=f"--{option}"):
        check(order("source", tmp_path, **given))


def test_paged_attention_is_for_a_gpu_and_16_bits(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--device cuda --precision fp16"):
        check(order("source", tmp_path, dialect=Dialect.PAGED))
    check(order("source", tmp_path, dialect=Dialect.PAGED, device=Device.CUDA, precision=Precision.FP16))


def test_a_precision_that_the_source_has_not_is_refused_with_those_that_it_has(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="int4: such a model is exported as fp32 or fp16"):
        check_precision(order("source", tmp_path, precision=Precision.INT4), Precision.FP32, Precision.FP16)
