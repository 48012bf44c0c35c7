"""Candidates made, judged and measured, each in a process of its own."""
