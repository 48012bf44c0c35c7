"""Held-out sounds, one behind the other, and the segments of the transcript that the service streamed."""

import io
import json
from pathlib import Path

import numpy as np
import soundfile
from matplotlib.figure import Figure

from millrace import AsyncClient

MODEL, SOUNDS, LINE_S, HIGHEST_HZ = "spoken", 10, 12.0, 8_000


async def draw(client: AsyncClient, held_out: Path, path: Path) -> None:
    """The first sounds of the listing, clean and noisy in turn, as one recording; a line of the picture is LINE_S."""
    rows = [json.loads(line) for line in (held_out / "labels.jsonl").read_text().splitlines()[:SOUNDS]]
    parts, rate = [], 0
    for row in rows:
        samples, rate = soundfile.read(held_out / row["audio"], dtype="float32")
        parts.append(samples)
    samples = np.concatenate(parts)
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC")
    segments = [segment async for segment in client.transcribe(MODEL, file.getvalue())]
    lines = int(np.ceil(len(samples) / rate / LINE_S))
    figure = Figure(figsize=(11, 1.55 * lines + 0.4), layout="constrained")
    for number, axes in enumerate(np.atleast_1d(figure.subplots(lines, 1))):
        begin, end = number * LINE_S, (number + 1) * LINE_S
        piece = samples[int(begin * rate) : int(end * rate)]
        axes.specgram(
            piece, NFFT=512, Fs=rate, noverlap=384, cmap="magma", vmin=-130, xextent=(begin, begin + len(piece) / rate)
        )
        axes.set(xlim=(begin, end), ylim=(0, HIGHEST_HZ), yticks=[])
        for segment in segments:
            if begin <= segment.start_s < end:
                axes.axvline(segment.start_s, color="white", linewidth=0.8, alpha=0.6)
                axes.text(segment.start_s + 0.05, 6_600, segment.text.strip(), color="white", fontsize=9)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    print(f"{path}: {path.stat().st_size:,} bytes; said: {' '.join(row['text'] for row in rows)}")
    print(f"heard: {''.join(segment.text for segment in segments)}")
