"""Reports of load tests: one HTML file each, with its figures inside."""

from millrace.load.report.pages import write_report, write_sweep_report

__all__ = ["write_report", "write_sweep_report"]
