"""See the package."""

import argparse
import asyncio
import sys
from pathlib import Path

from scripts.dashboard.grafana import dashboard

DASHBOARD, PICTURE = Path("deploy/monitoring/dashboard.json"), Path("docs/dashboard.png")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.dashboard")
    parser.add_argument("--check", action="store_true", help="compare dashboard.json with its description")
    parser.add_argument(
        "--picture", action="store_true", help="run a fleet for two minutes and draw docs/dashboard.png"
    )
    parser.add_argument("--seconds", type=int, default=120, help="how long the fleet is loaded for the picture")
    asked = parser.parse_args()
    if asked.picture:
        from scripts.dashboard.picture.run import take_picture

        asyncio.run(take_picture(PICTURE, asked.seconds))
    elif not asked.check:
        DASHBOARD.write_text(dashboard())
    elif DASHBOARD.read_text() != dashboard():
        print(f"{DASHBOARD} is not made of today's description: python -m scripts.dashboard")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
