"""The tables of settings in docs/operations.md."""

from pathlib import Path

import pytest

from scripts import settings_table

DOCUMENT = Path("docs/operations.md").read_text()


def test_the_document_says_what_the_code_says() -> None:
    assert settings_table.fill(DOCUMENT) == DOCUMENT


def test_every_setting_of_a_process_is_in_it_once_and_has_a_meaning() -> None:
    for kind, _ in settings_table.PARTS.values():
        for name, field in kind.model_fields.items():
            assert DOCUMENT.count(f"| `MILLRACE_{name.upper()}` |") >= 1
            assert field.description


def test_a_document_that_is_behind_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "operations.md"
    stale.write_text(DOCUMENT.replace("`MILLRACE_LEASE_MS` | `3000`", "`MILLRACE_LEASE_MS` | `1`"))
    monkeypatch.setattr(settings_table, "DOCUMENT", stale)
    monkeypatch.setattr("sys.argv", ["settings_table", "--check"])
    assert settings_table.main() == 1
    monkeypatch.setattr("sys.argv", ["settings_table"])
    assert settings_table.main() == 0
    assert stale.read_text() == DOCUMENT


def test_a_table_that_has_no_place_is_an_error() -> None:
    with pytest.raises(ValueError, match="worker"):
        settings_table.fill(DOCUMENT.replace("<!-- settings: worker -->", ""))
