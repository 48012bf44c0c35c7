"""The commands `embed`, `classify` and `transcribe`."""

import json
import sys
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.bar import Bar
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from millrace import Label
from millrace.cli import calls
from millrace.cli.arrays import save, wrong
from millrace.cli.options import Model
from millrace.cli.service import Service, calling

BAR_WIDTH, PREVIEW = 30, 4


@calling
def embed(
    service: Service,
    model: Model,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT…", help="- reads standard input, one text a line.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.npy", help="Save the vectors, one row for each text.")
    ] = None,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts that are too long for the model.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object for each text.")] = False,
) -> None:
    """Turn texts into vectors.

    [bold]millrace embed -m minilm 'a cat sleeps' 'a dog barks'[/bold]
    [bold]millrace embed -m minilm - -o vectors.npy < sentences.txt[/bold]
    """
    lines = sys.stdin.read().splitlines() if list(texts) == ["-"] else list(texts)
    raise typer.Exit(calls.run(_embed(service, model, lines, output, truncate=truncate, as_json=as_json)))


@calling
def classify(
    service: Service,
    model: Model,
    text: Annotated[str | None, typer.Option("--text", "-t", help="A text.")] = None,
    image: Annotated[Path | None, typer.Option("--image", metavar="FILE", help="PNG, JPEG or WebP.")] = None,
    audio: Annotated[Path | None, typer.Option("--audio", metavar="FILE", help="WAV or FLAC.")] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=0, help="So many labels; 0: all.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print the labels as JSON.")] = False,
) -> None:
    """Label a text, an image or a sound.

    [bold]millrace classify -m digits --image nine.png[/bold]
    [bold]millrace classify -m spam --text 'You have won!' --json[/bold]
    """
    asked = _classify(service, model, text, image, audio, top_k, as_json=as_json)
    raise typer.Exit(calls.run(asked))


@calling
def transcribe(
    service: Service,
    model: Model,
    audio: Annotated[Path, typer.Argument(metavar="FILE", help="WAV or FLAC.")],
    language: Annotated[str, typer.Option(metavar="TAG", help="As de or en-GB. Unset: the model decides.")] = "",
    times: Annotated[bool, typer.Option("--times", help="A line for each piece, with its place in seconds.")] = False,
) -> None:
    """Stream the transcript of a sound to standard output.

    [bold]millrace transcribe -m speech talk.flac[/bold]
    [bold]millrace transcribe -m speech talk.wav --times[/bold]
    """
    raise typer.Exit(calls.run(_transcribe(service, model, audio, language, times=times)))


async def _embed(
    service: Service,
    model: str,
    texts: Sequence[str],
    output: Path | None,
    *,
    truncate: bool,
    as_json: bool,
) -> None:
    if output is not None and not output.parent.is_dir():
        raise wrong("--output", f"there is no folder {output.parent}")
    await calls.models_served(service)
    async with service.client() as client:
        answer = await client.embed(model, texts, truncate=truncate)
    if output is not None:
        save("vectors", answer.array, output)
    for text, vector in zip(texts, answer.vectors, strict=True):
        if as_json:
            print(json.dumps({"text": text, "vector": vector}))
        elif output is None:
            shown = np.array2string(np.array(vector[:PREVIEW]), precision=4, floatmode="fixed")
            print(f"{shown.removesuffix(']')} …] {len(vector)} values  {text}")


async def _classify(
    service: Service,
    model: str,
    text: str | None,
    image: Path | None,
    audio: Path | None,
    top_k: int,
    *,
    as_json: bool,
) -> None:
    given = {"--text": text, "--image": image, "--audio": audio}
    if sum(value is not None for value in given.values()) != 1:
        raise wrong("input", f"give one of {', '.join(given)}")
    picture, sound = _read("--image", image), _read("--audio", audio)
    await calls.models_served(service)
    async with service.client() as client:
        labels = await client.classify(model, text=text, image=picture, audio=sound, top_k=top_k)
    if as_json:
        print(json.dumps([{"name": label.name, "score": label.score} for label in labels]))
    else:
        Console(highlight=False).print(_table(labels))


async def _transcribe(service: Service, model: str, audio: Path, language: str, *, times: bool) -> None:
    sound = _read("FILE", audio) or b""
    await calls.models_served(service)
    async with (
        service.client() as client,
        aclosing(client.transcribe(model, sound, language=language)) as segments,
    ):
        async for segment in segments:
            place = f"{segment.start_s:8.2f} {segment.end_s:8.2f}  " if times else ""
            sys.stdout.write(place + segment.text + "\n" * times)
            sys.stdout.flush()
    sys.stdout.write("\n" * (not times))


def _read(option: str, file: Path | None) -> bytes | None:
    """Raises InvalidRequest where the file cannot be read."""
    try:
        return None if file is None else file.read_bytes()
    except OSError as error:
        raise wrong(option, f"{file}: {error.strerror}") from None


def _table(labels: Sequence[Label]) -> Table:
    table = Table("label", "score", "", box=SIMPLE)
    for label in labels:
        table.add_row(label.name, f"{label.score:.4f}", Bar(1, 0, label.score, width=BAR_WIDTH))
    return table
