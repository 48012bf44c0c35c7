"""From a served model to a smaller or faster version of it.

    version ── make ──► candidates ── judge, measure (rounds) ──► choose ──► card, SHA256SUMS ──► rename

Candidates are made and run in processes of their own. What is written stays under a hidden name until it is whole.
docs/optimization.md explains it to those who optimise.
"""
