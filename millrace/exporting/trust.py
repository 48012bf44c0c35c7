"""What is known of a source before it is read: whether reading it runs code, and what may be told of it."""

from pathlib import Path

from millrace.exporting.order import Order


def need_trusted_pickle(order: Order) -> None:
    """Raises ValueError where the source is a file whose reading runs what its writer put there, and nobody vouches."""
    if not order.trust_pickle:
        raise ValueError(
            f"{Path(order.source).name}: reading such a file unpickles, which runs any code that its writer put there; "
            "--trust-pickle if you trust whoever wrote it"
        )


def need_inside(path: Path, folder: Path) -> None:
    """Raises ValueError where a file of `folder` is a link to somewhere else; a copy of the hub's links to its own
    store of files, two folders above."""
    roots = [folder.resolve(), *([folder.resolve().parents[1]] if folder.parent.name == "snapshots" else [])]
    if not any(path.resolve().is_relative_to(root) for root in roots):
        raise ValueError(f"{path.name} is a link that leads out of {folder.name}")


def told(source: str) -> str:
    """The source as a card names it, without the folders of this machine."""
    path, colon, function = source.rpartition(":")
    if colon:
        return f"{Path(path).name}{colon}{function}"
    return source if not Path(source).exists() else Path(source).absolute().name
