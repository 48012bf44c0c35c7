"""The dashboard's picture: real processes, a real Prometheus, the dashboard's own queries, drawn with matplotlib.

It needs Debian's package `prometheus`, whose service need not run.
"""
