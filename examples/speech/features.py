"""What the network hears: the worker's own log-mel features, made by the worker's own code.

So training, evaluation and service cannot differ in what stands before the graph; `SOUND` goes into model.yaml.
"""

from typing import Any

from services.worker.tasks.log_mel import LogMel, LogMelFields

SAMPLE_RATE, MELS, STRIDE = 16_000, 40, 4
FRAMES_PER_S = 100
SOUND: dict[str, Any] = {
    "sample_rate": SAMPLE_RATE,
    "features": "log-mel",
    "layout": "frames-mels",
    "log_mel": {"mels": MELS, "n_fft": 512, "high_hz": 7_600, "floor": 1e-6},
    "stride": STRIDE,
    "blank": 0,
    "language": "en",
}


def log_mel() -> LogMel:
    """Samples in [-1, 1] → [frames, MELS]."""
    return LogMel(LogMelFields.model_validate(SOUND["log_mel"]), SAMPLE_RATE)
