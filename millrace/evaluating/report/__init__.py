"""The page of an evaluation: one HTML file with its figures inside."""

from millrace.evaluating.report.page import write_report

__all__ = ["write_report"]
