"""The dashboard's picture, drawn of answers that were made up."""

from pathlib import Path

from PIL import Image

from scripts.dashboard.panels import ROWS
from scripts.dashboard.picture.draw import Drawn, draw

LINES = (Drawn("one", ((0.0, 1.0), (1.0, 2.0), (2.0, float("nan")))), Drawn("two", ((1.0, 0.5), (2.0, 0.25))))


def test_each_panel_is_drawn_in_its_row(tmp_path: Path) -> None:
    path = tmp_path / "dashboard.png"
    rows = [(row.title, [(panel, LINES) for panel in row.panels]) for row in ROWS[:1]]
    draw(path, rows, "A test.", 0.0, 2.0)
    with Image.open(path) as drawn:
        assert drawn.size == (1600, 1520)
        assert len(drawn.getcolors() or ()) > 10
    assert path.stat().st_size < 400_000


def test_rows_have_as_many_panels_as_grafana_has_places() -> None:
    assert {len(row.panels) for row in ROWS} == {4}
    titles = [panel.title for row in ROWS for panel in row.panels]
    assert len(set(titles)) == len(titles)
