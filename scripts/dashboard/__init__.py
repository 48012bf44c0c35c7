"""Grafana's dashboard: its description (panels.py), what Grafana loads (grafana.py), and a picture of it (picture/).

python -m scripts.dashboard            writes deploy/monitoring/dashboard.json
python -m scripts.dashboard --check    compares it with the description
python -m scripts.dashboard --picture  runs a fleet and a Prometheus for two minutes, and draws docs/dashboard.png
"""
