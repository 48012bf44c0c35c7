import numpy as np
import pytest

from millrace.planning.queueing import predict
from millrace.planning.simulation import Observed, quantile, simulate
from tests.planning.workers import exponential, lognormal, worker


@pytest.mark.parametrize(("workers", "slots", "rate"), [(1, 1, 0.6), (1, 4, 3.0), (4, 1, 3.0), (2, 5, 8.5)])
def test_exponential_services_wait_as_m_m_c(workers: int, slots: int, rate: float) -> None:
    waits = simulate(worker(slots), workers, rate).waits_s
    theory = predict(worker(slots), workers, rate)
    assert (waits > 1e-9).mean() == pytest.approx(theory.delay_probability, rel=0.05)
    assert waits.mean() == pytest.approx(theory.delay_probability / (workers * slots - rate), rel=0.1)
    assert np.quantile(waits, 0.95) == pytest.approx(theory.wait_s(0.95), rel=0.1)


def test_services_that_do_not_vary_wait_as_m_d_1() -> None:
    """Pollaczek and Khinchine: ρ / (2 (1 - ρ)) of the service time."""
    waits = simulate(worker(times_s=np.ones(10)), 1, 0.8).waits_s
    assert waits.mean() == pytest.approx(0.8 / (2 * 0.2), rel=0.05)


def test_services_that_vary_wait_as_m_g_1() -> None:
    times_s = lognormal(1.0, 0.5)
    waits = simulate(worker(times_s=times_s), 1, 0.7).waits_s
    assert waits.mean() == pytest.approx(0.7 * (1 + np.var(times_s)) / (2 * 0.3), rel=0.07)


def test_one_worker_whose_jobs_slow_each_other_down_is_the_chain() -> None:
    sharing = worker(4, slowing=0.3)
    found, theory = simulate(sharing, 1, 1.6), predict(sharing, 1, 1.6)
    assert (found.waits_s > 1e-9).mean() == pytest.approx(theory.delay_probability, rel=0.05)
    assert found.services_s.mean() == pytest.approx(theory.stretches.mean(), rel=0.02)


def test_what_is_alone_takes_what_it_takes_alone() -> None:
    found = simulate(worker(8, lognormal(0.2, 0.25), slowing=0.5), 100, 0.01, jobs=500)
    assert found.stretches == pytest.approx(1.0)
    assert not found.waits_s.any()


def test_a_thousand_workers_are_simulated() -> None:
    found = simulate(worker(8, lognormal(0.2, 0.25)), 1000, 0.9 * 40_000, jobs=60_000)
    assert found.services_s.mean() == pytest.approx(0.2, rel=0.01)
    assert np.quantile(found.waits_s, 0.99) == 0


def test_the_same_seed_gives_the_same_jobs() -> None:
    first, again, other = (simulate(worker(2), 2, 3.0, jobs=2000, seed=seed) for seed in (1, 1, 2))
    assert (first.waits_s == again.waits_s).all()
    assert not np.array_equal(first.waits_s, other.waits_s)


def test_a_part_of_the_service_is_stretched_as_the_whole() -> None:
    observed = Observed(waits_s=np.array([1.0, 0.0]), stretches=np.array([1.0, 3.0]), services_s=np.array([5.0, 6.0]))
    assert observed.latencies_s().tolist() == [6.0, 6.0]
    assert observed.latencies_s(np.array([0.5])).tolist() == [1.5, 1.5]


def test_the_uncertainty_covers_what_another_seed_says() -> None:
    found = [quantile(simulate(worker(4), 1, 3.4, jobs=40_000, seed=seed).waits_s, 0.95) for seed in range(12)]
    values = np.array([value for value, _ in found])
    typical = float(np.mean([uncertainty for _, uncertainty in found]))
    assert 0.4 < float(np.std(values, ddof=1)) / typical < 2.5


@pytest.mark.parametrize("utilisation", [0.6, 0.9])
@pytest.mark.parametrize("scv", [0.0, 1.0])
@pytest.mark.parametrize(("workers", "slots", "slowing"), [(1, 4, 0.1), (3, 4, 0.0), (4, 8, 0.1), (30, 4, 0.2)])
def test_the_model_is_within_15_percent_of_the_simulation(
    workers: int, slots: int, slowing: float, scv: float, utilisation: float
) -> None:
    times_s = lognormal(1.0, scv)
    one = worker(slots, times_s, slowing)
    rate = utilisation * workers * one.capacity
    simulated, _ = quantile(simulate(one, workers, rate, jobs=80_000, seed=1).latencies_s(), 0.99)
    assert predict(one, workers, rate).latency_s(0.99, times_s) == pytest.approx(simulated, rel=0.15)


def test_exponential_times_have_the_mean_and_variance_that_are_theirs() -> None:
    one = worker(times_s=exponential(2.0))
    assert one.unloaded_s == pytest.approx(2.0, rel=0.001)
    assert one.scv == pytest.approx(1.0, rel=0.01)
