import math

import numpy as np
import pytest

from millrace.planning.measured import Worker
from millrace.planning.queueing import Prediction, predict
from tests.planning.workers import exponential, lognormal, worker


@pytest.mark.parametrize(
    ("workers", "slots", "load", "waits"),
    [
        (1, 1, 0.5, 0.5),
        (2, 1, 1.0, 1 / 3),
        (1, 3, 2.0, 4 / 9),
        (1, 5, 4.0, 0.55411),
        (5, 2, 6.0, 0.10130),
        (10, 1, 8.0, 0.40918),
        (5, 4, 16.0, 0.25608),
        (25, 4, 90.0, 0.21694),
        (125, 8, 970.0, 0.24282),
    ],
)
def test_servers_that_do_not_slow_each_other_down_follow_erlangs_c(
    workers: int, slots: int, load: float, waits: float
) -> None:
    assert predict(plain(slots), workers, load).delay_probability == pytest.approx(waits, rel=1e-4)


def plain(slots: int) -> Worker:
    """Whose requests take a second, exactly."""
    return Worker(speeds=tuple(float(count) for count in range(1, slots + 1)), services_s=exponential(1.0))


def test_servers_that_slow_each_other_down_follow_the_chain() -> None:
    """Rates 1 and 3/2 out, 1 in: weights 1, 1, then 2/3 + 4/9 + … = 2, so that all slots are busy half of the time."""
    found = predict(Worker(speeds=(1.0, 1.5), services_s=exponential(1.0)), 1, 1.0)
    assert found.delay_probability == pytest.approx(0.5)


def test_the_wait_of_one_server_is_that_of_m_m_1() -> None:
    found = predict(worker(), 1, 0.8)
    assert found.wait_s(0.99) == pytest.approx(math.log(80) / 0.2, rel=0.01)
    assert found.wait_s(0.1) == 0


def test_the_latency_of_one_server_is_that_of_m_m_1() -> None:
    assert predict(worker(), 1, 0.8).latency_s(0.99, exponential(1.0)) == pytest.approx(math.log(100) / 0.2, rel=0.01)


def test_service_times_that_do_not_vary_halve_the_wait() -> None:
    assert predict(worker(times_s=np.ones(10)), 1, 0.8).delay_s == pytest.approx(2.5)
    assert predict(worker(times_s=lognormal(1.0, 0.5)), 1, 0.8).delay_s == pytest.approx(0.75 * 5, rel=0.02)


def test_where_nobody_waits_the_latency_is_the_service() -> None:
    idle = Prediction(utilisation=0, delay_probability=0, delay_s=1, stretches=np.array([2.0]))
    assert idle.latency_s(0.9, np.arange(1, 101) / 100) == pytest.approx(1.8, abs=0.03)


def test_a_large_fleet_waits_less_at_the_same_utilisation() -> None:
    waits = [predict(worker(8), workers, 0.9 * workers * 8).wait_s(0.99) for workers in (1, 10, 100)]
    assert waits[0] > 5 * waits[1] > 25 * waits[2]


def test_more_than_the_capacity_is_an_error() -> None:
    with pytest.raises(ValueError, match="2 workers bear 8 requests a second, not 8"):
        predict(plain(4), 2, 8.0)
