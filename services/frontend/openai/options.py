"""How this API's jobs are queued: under a name that the caller may give, waiting for it a while where it is gone."""

from dataclasses import dataclass

from millrace.v1.job_pb2 import JobOptions
from services.frontend.rules import Bounds, Violations, check_job


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """Makes and checks JobOptions."""

    bounds: Bounds
    resume_window_s: float

    def make(self, job_id: str, *, resumable: bool) -> JobOptions:
        options = JobOptions(job_id=job_id)
        if resumable:
            window_s = min(self.resume_window_s, self.bounds.max_resume_window_s)
            options.resume_window.FromMilliseconds(round(window_s * 1000))
        return options

    def check(self, options: JobOptions) -> Violations:
        """The name is the caller's."""
        return check_job(options, self.bounds, attachable=False)
