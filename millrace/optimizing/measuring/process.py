"""Child processes, one at a time."""

import signal
import subprocess
import sys

from pydantic import ValidationError

from millrace.optimizing.measuring.job import Answer, Content, Job, Refusal

CHILD = "millrace.optimizing.measuring.child"
LIMIT_S = 3600.0


def run(job: Job) -> Content:
    """What a child answers; where it ends without an answer, how it ended. It ends with this call."""
    command = [sys.executable, "-m", CHILD]
    try:
        done = subprocess.run(
            command, input=job.model_dump_json(), capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return Refusal(words=f"took more than {LIMIT_S:g} s")
    try:
        return Answer.model_validate_json(done.stdout).content
    except ValidationError:
        return Refusal(words=_end(done.returncode, done.stderr))


def _end(status: int, said: str) -> str:
    """As "its process was ended by SIGKILL, as one is that takes too much memory"."""
    if status >= 0:
        return f"its process ended with {status}: {(said.splitlines() or ['it said nothing'])[-1][:200]}"
    name = signal.Signals(-status).name
    return f"its process was ended by {name}" + (", as where memory runs out" if name == "SIGKILL" else "")
