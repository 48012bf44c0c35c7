"""Held-out sounds as the network gets them, and what the service heard in each."""

import json
from pathlib import Path

import numpy as np
import soundfile
from matplotlib.figure import Figure

from examples.speech.features import FRAMES_PER_S, log_mel
from millrace import AsyncClient

MODEL, ROWS, COLUMNS = "spoken", 3, 3
RIGHT, WRONG, FAINT = "#1f2937", "#c2410c", "#7c8794"


async def draw(client: AsyncClient, held_out: Path, path: Path) -> None:
    """The first sounds of the listing, clean and noisy in turn."""
    listing = (held_out / "labels.jsonl").read_text().splitlines()[: ROWS * COLUMNS]
    figure, front_end = Figure(figsize=(11, 1.75 * ROWS), layout="constrained"), log_mel()
    for axes, row in zip(figure.subplots(ROWS, COLUMNS).flat, map(json.loads, listing), strict=True):
        sound = held_out / row["audio"]
        heard = await client.transcribe_text(MODEL, sound.read_bytes())
        features = front_end(soundfile.read(sound, dtype="float32")[0])
        seconds = len(features) / FRAMES_PER_S
        axes.imshow(features.T, cmap="magma", origin="lower", aspect="auto", extent=(0, seconds, 0, 1))
        axes.set_yticks([])
        axes.tick_params(labelsize=7)
        right = heard == row["text"]
        told = f"“{heard}”" if right else f"“{heard}”\nsaid: {row['text']}"
        axes.set_title(told, fontsize=9, loc="left", color=RIGHT if right else WRONG)
        axes.set_xlabel(f"{row['condition']}, {row['voice']}", fontsize=7, color=FAINT, loc="right", labelpad=0)
        print(f"{row['audio']}: said {row['text']!r}, heard {heard!r}, {np.round(seconds, 1)} s")
    figure.savefig(path, dpi=90, metadata={"Software": None})
    print(f"{path}: {path.stat().st_size:,} bytes")
