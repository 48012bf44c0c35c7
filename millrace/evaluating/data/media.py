"""Images and sounds that lie beside the data. What names them was written by somebody: it does not lead elsewhere."""

import hashlib
from pathlib import Path

from millrace.evaluating.data.example import Medium

MEDIA: dict[str, Medium] = {
    **dict.fromkeys((".png", ".jpg", ".jpeg", ".webp"), "image"),
    **dict.fromkeys((".wav", ".flac"), "audio"),
}


class Folder:
    """The one in which the data lies. `sha256` grows with each file that is asked for."""

    def __init__(self, path: Path) -> None:
        self._path = path.resolve()
        self.sha256 = hashlib.sha256()

    def file(self, name: str) -> Path:
        """Raises ValueError where there is no such file in the folder, or below."""
        path = (self._path / name).resolve()
        if not path.is_relative_to(self._path):
            raise ValueError(f"{name} lies outside of the data's folder")
        if not path.is_file():
            raise ValueError(f"there is no file {name}")
        with path.open("rb") as opened:
            self.sha256.update(name.encode() + b"\0" + hashlib.file_digest(opened, "sha256").digest())
        return path


def medium_of(name: str) -> Medium:
    """Raises ValueError for what is neither."""
    suffix = Path(name).suffix.lower()
    if suffix not in MEDIA:
        raise ValueError(f"file: {name} is none of {', '.join(MEDIA)}")
    return MEDIA[suffix]
