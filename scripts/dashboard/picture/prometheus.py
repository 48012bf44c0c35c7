"""A Prometheus of its own on a free loopback port, and what it answers."""

import asyncio
import json
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from tests.processes import Process, free_port

VARIABLES = {"$namespace": ".*", "$model": ".*", "$__rate_interval": "10s"}


@dataclass(frozen=True, slots=True)
class Line:
    """One series of an answer: its labels, and (seconds since 1970, value) wherever it has one."""

    labels: Mapping[str, str]
    points: tuple[tuple[float, float], ...]


class Prometheus(Process):
    """Scrapes HOST:PORT, each under its name, every second."""

    def __init__(self, targets: Mapping[str, str]) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        super().__init__(["prometheus", f"--web.listen-address={self.address}", "--log.level=warn"])
        job = {
            "job_name": "millrace",
            "static_configs": [
                {"targets": [address], "labels": {"instance": name}} for name, address in targets.items()
            ],
        }
        timing = {"scrape_interval": "1s", "scrape_timeout": "1s"}
        (self.folder / "config.yaml").write_text(yaml.safe_dump({"global": timing, "scrape_configs": [job]}))
        self._command += [f"--config.file={self.folder / 'config.yaml'}", f"--storage.tsdb.path={self.folder / 'data'}"]

    async def range(self, expression: str, begin: float, end: float) -> list[Line]:
        """A query of the dashboard, each second. Raises ValueError where Prometheus does not take it."""
        for variable, value in VARIABLES.items():
            expression = expression.replace(variable, value)
        asked = urllib.parse.urlencode({"query": expression, "start": begin, "end": end, "step": 1})
        answer = await asyncio.to_thread(_get, f"http://{self.address}/api/v1/query_range?{asked}")
        return [
            Line(series["metric"], tuple((at, float(value)) for at, value in series["values"]))
            for series in answer["data"]["result"]
        ]

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=1):
                return True
        except OSError:
            return False


def _get(url: str) -> Any:
    try:
        with urllib.request.urlopen(url, timeout=30) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            raise ValueError(f"Prometheus: {error.read().decode()}") from error
