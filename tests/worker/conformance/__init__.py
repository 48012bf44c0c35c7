"""A suite that any engine can be run against. docs/engines.md tells how."""

import pytest

pytest.register_assert_rewrite("tests.worker.conformance.suite", "tests.worker.conformance.driver")

from tests.worker.conformance.example import Example  # noqa: E402
from tests.worker.conformance.suite import Conformance  # noqa: E402

__all__ = ["Conformance", "Example"]
