"""See the package."""

import argparse
import asyncio
import sys
from pathlib import Path

from millrace import AsyncClient
from scripts.demo import fleet
from scripts.gallery import completion, digits, transcript

PICTURES = ("completion", "digits", "transcript")
MODELS, SPOKEN, DOCS = Path("models"), Path("build/spoken"), Path("docs")


async def draw(chosen: argparse.Namespace) -> None:
    if {"completion", "digits"} & {*chosen.only}:
        async with fleet(MODELS) as address, AsyncClient(address) as client:
            if "digits" in chosen.only:
                await digits.draw(client, MODELS / "digits" / "held_out.npz", DOCS / "digits.png")
            if "completion" in chosen.only:
                await completion.draw(client, address, DOCS / "completion.gif")
    if "transcript" in chosen.only:
        async with fleet(chosen.spoken / "models") as address, AsyncClient(address) as client:
            await transcript.draw(client, chosen.spoken / "held_out", DOCS / "transcript.png")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m scripts.gallery")
    parser.add_argument("--only", nargs="+", choices=PICTURES, default=PICTURES, metavar="PICTURE")
    parser.add_argument("--spoken", type=Path, default=SPOKEN, help="what examples/speech made (%(default)s)")
    chosen = parser.parse_args()
    if "transcript" in chosen.only and not (chosen.spoken / "models").exists():
        sys.exit(f"{chosen.spoken} has no model that hears: run `python -m examples.speech`, or --only {PICTURES[0]}")
    asyncio.run(draw(chosen))


if __name__ == "__main__":
    main()
