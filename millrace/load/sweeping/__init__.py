"""Runs at several rates, and what they say of the service: its knee, and the highest rate that keeps an SLO."""
