"""Examples become calls, and calls answers, of which none is lost."""

from millrace.evaluating.asking.answer import Answer, Failure, Outcome
from millrace.evaluating.asking.asker import Asker, Options
from millrace.evaluating.asking.journal import Journal
from millrace.evaluating.asking.running import Progress, ask_all
from millrace.evaluating.asking.target import Target, find_target

__all__ = [
    "Answer",
    "Asker",
    "Failure",
    "Journal",
    "Options",
    "Outcome",
    "Progress",
    "Target",
    "ask_all",
    "find_target",
]
