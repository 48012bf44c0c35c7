"""Each version through the service, held against its graph alone."""

from collections.abc import Sequence

from examples.serving import Evaluated
from examples.speech.corpus import Labelled
from examples.speech.score import Score


def transcripts(served: Evaluated, sounds: Sequence[Labelled]) -> list[str]:
    """What the service heard in these sounds."""
    return [served.answers[one.id].text or "" for one in sounds]


def same(alone: Sequence[str], rate: Score, heard: Sequence[str], served: Evaluated) -> None:
    """Raises RuntimeError where a transcript, or the word error rate, is another than alone."""
    title, found = served.result.system.title, served.result.system.measure("wer")
    if other := sum(one != through for one, through in zip(alone, heard, strict=True)):
        raise RuntimeError(f"{title}: the service hears {other} sounds as ONNX Runtime alone does not")
    if found is None or abs(found.value - rate.wer) > 1e-9:
        value = "none" if found is None else f"{found.value:.6f}"
        raise RuntimeError(f"{title}: the word error rate through the service is {value}, and alone {rate.wer:.6f}")
