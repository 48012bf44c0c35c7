"""What each version gave through the service must be what its graph gives alone."""

from examples.image.evaluate import Score
from millrace.evaluating.result import Result


def same(alone: Score, result: Result) -> None:
    """Raises RuntimeError where the service's figures are others than these."""
    accuracy, title = result.system.measure("accuracy"), result.system.title
    if accuracy is None or accuracy.value != alone.accuracy:
        served = "none" if accuracy is None else f"{accuracy.value:.6f}"
        raise RuntimeError(f"{title}: the accuracy through the service is {served}, and alone {alone.accuracy:.6f}")
    if [list(row) for row in result.system.confusion] != alone.confusion:
        raise RuntimeError(f"{title}: the confusion matrix through the service is another than alone")
