"""Others that serve the same weights: a program for each, and what it needs, pinned.

`genai` runs in an environment of its own: it imports nothing from here but what needs the standard library alone.
"""
