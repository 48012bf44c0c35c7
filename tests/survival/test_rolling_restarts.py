"""Rolling restarts of everything, and what the published service config says."""

import pytest

from tests.chaos import rolling_restart
from tests.chaos.experiment import Scale


@pytest.mark.timeout(240)  # It may have to build Node's client first.
async def test_nobody_notices_that_everything_is_restarted(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = await rolling_restart.run(Scale())
    with capsys.disabled():
        print(f"\nrolling restarts: {outcome.done}: {outcome.counts}, {outcome.figures}")
    assert outcome.failures == (), outcome
