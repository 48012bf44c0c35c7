"""A fleet of an evaluation's own."""

from pathlib import Path

import pytest

from millrace.client import AsyncClient
from millrace.errors import Unavailable
from millrace.evaluating.serving import serving
from tests.stub_models import write_stub


async def test_what_cannot_be_served_is_told_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no fleet could be started: millrace: no model in "):
        async with serving(tmp_path):
            pass


async def test_a_fleet_serves_until_the_block_ends(tmp_path: Path) -> None:
    write_stub(tmp_path)
    async with serving(tmp_path, device="cpu", threads=1) as address, AsyncClient(address) as client:
        assert [one.name for one in await client.models()] == ["stub"]
    async with AsyncClient(address, retry_s=0.0) as client:
        with pytest.raises(Unavailable):
            await client.models()
