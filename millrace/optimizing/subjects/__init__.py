"""What runs on a candidate's graph, by the model's engine."""

from pathlib import Path

import onnxruntime as ort

from millrace.exporting import graphs as exported
from millrace.optimizing.subjects import rows
from millrace.optimizing.subjects.decoder import DecoderSubject
from millrace.optimizing.subjects.subject import Metric, Subject
from millrace.optimizing.subjects.tensors import TensorSubject, runnable
from millrace.optimizing.version import Version

__all__ = ["Metric", "Subject", "choose"]


def choose(version: Version, session: ort.InferenceSession, data: Path | None) -> Subject:
    """Raises ValueError where data and model do not fit each other."""
    if version.decoder is not None:
        return DecoderSubject(version, session, data)
    found = runnable(session) if data is None else rows.read(data, version, exported.inputs(session))
    return TensorSubject(version, session, found)
