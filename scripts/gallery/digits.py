"""Held-out digits, each asked of the service as a picture, with the label and the probability that it gave."""

import asyncio
import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image

from millrace import AsyncClient

MODEL, ROWS, COLUMNS = "digits", 4, 12
RIGHT, WRONG = "#1f2937", "#c2410c"


async def draw(client: AsyncClient, held_out: Path, path: Path) -> None:
    """Asks for all, and draws the least certain of them, those that are wrong first."""
    with np.load(held_out) as arrays:
        images, labels = arrays["x"][:, 0], [str(label) for label in arrays["label"]]
    answers = await asyncio.gather(*(client.classify(MODEL, image=png(image)) for image in images))
    found = [(answer[0].name, answer[0].score) for answer in answers]
    right = [label == one[0] for label, one in zip(labels, found, strict=True)]
    order = sorted(range(len(images)), key=lambda index: (right[index], found[index][1]))[: ROWS * COLUMNS]
    figure = Figure(figsize=(COLUMNS * 0.9, ROWS * 1.15 + 0.5), layout="constrained")
    figure.suptitle(
        f"{sum(right)} of {len(images)} held-out digits right, through the service; the {len(order)} least certain",
        fontsize=11,
    )
    for axes, index in zip(figure.subplots(ROWS, COLUMNS).flat, order, strict=True):
        axes.imshow(images[index], cmap="gray_r", vmin=0, vmax=16)
        axes.set_axis_off()
        label, score = found[index]
        told = f"{label}  {score:.0%}" if right[index] else f"{label}  {score:.0%}, is {labels[index]}"
        axes.set_title(told, fontsize=8.5, color=RIGHT if right[index] else WRONG)
    figure.savefig(path, dpi=110, metadata={"Software": None})
    print(f"{path}: {path.stat().st_size:,} bytes")


def png(image: npt.NDArray[np.uint8]) -> bytes:
    """Dark on white, as people write; 0 to 16 becomes 255 to 0."""
    file = io.BytesIO()
    Image.fromarray(np.round(255 - image.astype(np.float64) * 255 / 16).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()
