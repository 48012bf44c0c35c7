"""One job in a process of its own: python -m millrace.optimizing.measuring.child < JOB > ANSWER

So a candidate that crashes costs its own row, and memory is counted from where nothing of a model was in it.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from millrace.exporting import graphs as exported
from millrace.exporting.parity import Tensors
from millrace.optimizing import graphs, methods, subjects, version
from millrace.optimizing.measuring import judging, speed
from millrace.optimizing.measuring.job import Answer, Content, Job, Judgement, Made, Measures, Refusal
from millrace.optimizing.order import Method
from millrace.optimizing.subjects import rows, tensors
from millrace.optimizing.version import Version

WORDS_CHARACTERS = 300


def main() -> None:
    job = Job.model_validate_json(sys.stdin.read())
    answers, sys.stdout = sys.stdout, sys.stderr  # libraries print
    answers.write(Answer(content=answer(job)).model_dump_json())


def answer(job: Job) -> Content:
    """Does the job. What the method or the data are at fault for is answered too."""
    try:
        return ANSWERS[job.kind](job)
    except ValueError as error:
        words = str(error)
    except Exception as error:  # ONNX Runtime's and the quantisers' errors have no base of their own
        words = f"failed: {error}" if str(error) else f"failed: {type(error).__name__}"
    return Refusal(words=" ".join(words.split())[:WORDS_CHARACTERS])


def make(job: Job) -> Made:
    original = version.read(Path(job.folder), job.device)
    out = Path(job.graph)
    assert job.method is not None, "there is something to make"
    methods.make(job.method, original, out, _calibration(job, original), job.calibrate)
    return Made(size_bytes=graphs.size(out))


def judge(job: Job) -> Judgement:
    return judging.judge(_open(job), Path(job.reference), is_original=job.method is None)


def measure(job: Job) -> Measures:
    before = speed.held_bytes()
    return speed.measure(_open(job), job.seconds, before)


ANSWERS: Mapping[str, Callable[[Job], Content]] = {"make": make, "judge": judge, "measure": measure}


def _calibration(job: Job, original: Version) -> Iterator[Tensors] | None:
    """None where there is none, or none is needed."""
    if job.calibration is None or job.method is not Method.INT8_STATIC or original.decoder is not None:
        return None
    session = graphs.open_session(original.graph, job.device, job.threads)
    return tensors.feeds(rows.read(Path(job.calibration), original, exported.inputs(session)))


def _open(job: Job) -> subjects.Subject:
    session = graphs.open_session(Path(job.graph), job.device, job.threads)
    original = version.read(Path(job.folder), job.device)
    return subjects.choose(original, session, None if job.data is None else Path(job.data))


if __name__ == "__main__":
    main()
