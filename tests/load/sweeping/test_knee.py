import numpy as np
import pytest

from millrace.load.sweeping.knee import knee


def answered(offered: float, capacity: float) -> tuple[float, float]:
    return offered, min(offered, capacity)


def test_the_knee_is_the_height_of_the_plateau() -> None:
    assert knee([answered(rate, 40) for rate in (10, 20, 30, 50, 60)]) == 40


def test_one_overloaded_point_is_enough() -> None:
    assert knee([(10, 10), (20, 14)]) == 14


def test_between_two_overloaded_points_the_knee_is_in_the_middle() -> None:
    assert knee([(10, 10), (40, 28), (50, 30)]) == 29


def test_the_order_of_the_points_does_not_matter() -> None:
    points = [answered(rate, 40) for rate in (60, 10, 50, 30, 20)]
    assert knee(points) == knee(sorted(points)) == 40


def test_where_all_that_is_offered_is_answered_there_is_no_knee() -> None:
    assert knee([(10, 10), (20, 19.9), (30, 30.1)]) is None


def test_where_the_last_point_is_a_little_behind_there_is_no_knee() -> None:
    assert knee([(10, 10), (20, 20), (30, 29)]) is None


def test_nothing_has_no_knee() -> None:
    assert knee([]) is None


@pytest.mark.parametrize("seed", range(5))
def test_noise_does_not_move_the_knee_far(seed: int) -> None:
    noise = np.random.default_rng(seed).normal(1, 0.03, 7)
    points = [answered(rate, 100) for rate in (50, 70, 80, 90, 100, 110, 130)]
    found = knee([(x, y * wrong) for (x, y), wrong in zip(points, noise.tolist(), strict=True)])
    assert found == pytest.approx(100, rel=0.05)


def test_a_run_that_was_disturbed_does_not_move_the_knee_far() -> None:
    points = [answered(rate, 100) for rate in (50, 70, 80, 90, 110, 130)]
    assert knee([*points, (100, 60)]) == pytest.approx(100, rel=0.01)
