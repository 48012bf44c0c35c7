"""Model repositories that lie elsewhere: copied whole, or not at all."""

import importlib.util
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pytest
import yaml

from services.worker import repository
from services.worker.repository import copying, mirror
from services.worker.repository.remote import Remote
from services.worker.repository.source import Source, open_source
from services.worker.repository.urls import redacted

STUB = yaml.safe_dump({"name": "stub", "task": "text-generation", "engine": "stub"}).encode()


class Bucket:
    """A folder in fsspec's memory."""

    def __init__(self, name: str) -> None:
        self._files: Any = fsspec.filesystem("memory")
        self._root = f"/{name}"
        self.url = f"memory:/{self._root}"

    def write(self, name: str, content: bytes = STUB) -> None:
        self._files.pipe(f"{self._root}/{name}", content)

    def remove(self, name: str) -> None:
        self._files.rm(f"{self._root}/{name}", recursive=True)


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(tmp_path.name)


@pytest.fixture
def source(bucket: Bucket, tmp_path: Path) -> Source:
    bucket.write("stub/1/model.yaml")
    bucket.write("stub/1/data/weights", b"123")
    return open_source(bucket.url, tmp_path / "cache")


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of files that were read remotely."""
    names: list[str] = []
    real = Remote.open

    def opened(remote: Remote, file: Any) -> Any:
        names.append(file.path.rpartition("/")[2])
        return real(remote, file)

    monkeypatch.setattr(Remote, "open", opened)
    return names


def versions(source: Source) -> list[str]:
    models, broken = repository.scan(source.folder)
    assert not broken
    return [f"{model.name}/{model.version}" for model in models]


def refused(source: Source) -> str:
    (one,) = source.refresh()
    return one.reason


def test_a_local_folder_is_served_where_it_lies(tmp_path: Path) -> None:
    for url in (str(tmp_path), f"file://{tmp_path}"):
        source = open_source(url, tmp_path / "cache")
        assert source.folder == tmp_path
        assert source.refresh() == ()
    assert not (tmp_path / "cache").exists()


def test_a_repository_is_copied_with_its_policies_and_nothing_else(bucket: Bucket, source: Source) -> None:
    bucket.write("README.md", b"")
    bucket.write("stub/README.md", b"")
    bucket.write(".git/1/model.yaml")
    bucket.write("stub/2/model.yaml")
    bucket.write("stub/model.yaml", b"versions: {specific: [2]}")
    assert source.refresh() == []
    assert versions(source) == ["stub/1", "stub/2"]
    assert [model.version for model in repository.scan(source.folder)[0] if model.chosen] == ["2"]
    files = {path.relative_to(source.folder).as_posix() for path in source.folder.glob("[!.]*/**/*") if path.is_file()}
    assert files == {"stub/1/model.yaml", "stub/1/data/weights", "stub/2/model.yaml", "stub/model.yaml"}
    assert (source.folder / "stub/1/data/weights").read_bytes() == b"123"


def test_what_has_not_changed_is_not_read_again(bucket: Bucket, source: Source, fetched: list[str]) -> None:
    source.refresh()
    assert sorted(fetched) == ["model.yaml", "weights"]
    fetched.clear()
    source.refresh()
    assert fetched == []
    bucket.write("stub/1/data/weights", b"321")
    source.refresh()
    assert fetched == ["weights"]
    assert (source.folder / "stub/1/data/weights").read_bytes() == b"321"
    assert versions(source) == ["stub/1"]


def test_what_has_vanished_remotely_vanishes_locally(bucket: Bucket, source: Source) -> None:
    bucket.write("stub/2/model.yaml")
    bucket.write("stub/model.yaml", b"versions: {latest: 1}")
    bucket.write("other/1/model.yaml", STUB.replace(b"stub", b"other", 1))
    source.refresh()
    bucket.remove("stub/1/data/weights")
    bucket.remove("stub/2")
    bucket.remove("stub/model.yaml")
    bucket.remove("other")
    source.refresh()
    assert versions(source) == ["stub/1"]
    assert [path.name for path in (source.folder / "stub").iterdir()] == ["1"]
    assert not (source.folder / "stub/1/data").exists()
    assert not (source.folder / "other").exists()


def test_a_source_that_is_away_or_empty_takes_nothing_away(bucket: Bucket, source: Source) -> None:
    source.refresh()
    bucket.remove("stub")
    with pytest.raises(OSError, match=r"^memory://.* holds no model$"):
        source.refresh()
    assert versions(source) == ["stub/1"]


def test_a_copy_that_was_interrupted_shows_nothing_and_is_gone_on_with(
    bucket: Bucket, source: Source, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = copying.copy_remote

    def breaks(remote: Any, file: Any, target: Path, progress: Any) -> None:
        if file.path.endswith("weights"):
            target.write_bytes(b"1")
            raise ConnectionResetError("gone")
        real(remote, file, target, progress)

    bucket.write("stub/1/a", b"whole")
    monkeypatch.setattr(mirror, "copy_remote", breaks)
    assert "gone" in refused(source)
    assert versions(source) == []
    fetched.clear()
    monkeypatch.setattr(mirror, "copy_remote", real)
    assert source.refresh() == []
    assert "a" not in fetched
    assert "weights" in fetched
    assert versions(source) == ["stub/1"]


def test_an_interrupted_copy_of_what_has_changed_meanwhile_begins_anew(
    bucket: Bucket, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(mirror, "sync_folders", lambda _: (_ for _ in ()).throw(OSError("pulled")))
        assert "pulled" in refused(source)
    bucket.write("stub/1/data/weights", b"456")
    bucket.remove("stub/1/model.yaml")
    bucket.write("stub/1/model.yaml", STUB + b"slots: 3\n")
    assert source.refresh() == []
    (model,) = repository.scan(source.folder)[0]
    assert model.file.slots == 3
    assert (model.folder / "data/weights").read_bytes() == b"456"


def test_a_version_that_cannot_be_copied_leaves_what_was_there(bucket: Bucket, source: Source) -> None:
    source.refresh()
    bucket.write("stub/1/..", b"")
    bucket.write("stub/2/model.yaml")
    assert "is no name of a file" in refused(source)
    assert versions(source) == ["stub/1", "stub/2"]


def test_a_disk_without_room_is_found_before_anything_is_copied(
    source: Source, fetched: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "SPARE_BYTES", 1 << 62)
    assert "its files need" in refused(source)
    assert "has room for 0 bytes" in refused(source)
    assert fetched == []


@pytest.mark.parametrize(("change", "expected"), [(1, "less than"), (-1, "more than")])
def test_a_file_of_another_size_than_was_said_is_refused(
    source: Source, monkeypatch: pytest.MonkeyPatch, change: int, expected: str
) -> None:
    real = Remote._file

    def wrong(remote: Remote, path: str, about: Any) -> Any:
        return real(remote, path, {**about, "size": about["size"] + change})

    monkeypatch.setattr(Remote, "_file", wrong)
    assert expected in refused(source)
    assert versions(source) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stub/2/../../../out", "inside the folder"),
        ("../out/2/model.yaml", "inside the folder"),
        ("stub/../out", None),
        ("/out/2/model.yaml", "inside the folder"),
        ("stub/2//out", "inside the folder"),
        ("stub/2/a\\b", "inside the folder"),
        ("stub/2/a\x1b[2J", "inside the folder"),
        ("stub/2/" + "x" * 256, "inside the folder"),
        ("stub/a b/model.yaml", "no file of a model"),
        ("st:ub/2/model.yaml", "no file of a model"),
        ("stub/model.yaml/model.yaml", "no file of a model"),
    ],
)
def test_a_name_that_leads_elsewhere_is_refused_with_its_version(
    tmp_path: Path, name: str, expected: str | None
) -> None:
    archive = tmp_path / "models.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("stub/1/model.yaml", STUB)
        file.writestr("stub/2/model.yaml", STUB)
        file.writestr(name, b"out")
    source = open_source(f"zip://::{archive}", tmp_path / "cache")
    broken = source.refresh()
    assert "stub/1" in versions(source)
    assert not list(tmp_path.rglob("out"))
    assert all(one.path.is_relative_to(tmp_path / "cache") for one in broken)
    if expected is not None:
        assert expected in broken[0].reason
        assert name.startswith("stub/2/") is ("stub/2" not in versions(source))


def test_an_archive_whose_names_are_no_text_may_be_a_better_one_later(tmp_path: Path) -> None:
    archive = tmp_path / "models.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("stub/1/ä", b"x")
    archive.write_bytes(archive.read_bytes().replace("ä".encode(), b"\xff\xfe"))
    with pytest.raises(OSError, match="utf-8"):
        open_source(f"zip://::{archive}", tmp_path / "cache").refresh()


def test_an_archive_is_a_source(tmp_path: Path) -> None:
    archive = tmp_path / "models.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("stub/1/model.yaml", STUB)
    source = open_source(f"zip://::{archive}", tmp_path / "cache")
    assert source.refresh() == []
    assert versions(source) == ["stub/1"]
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("stub/2/model.yaml", STUB)
    assert source.refresh() == []
    assert versions(source) == ["stub/2"]


def test_two_urls_share_a_cache_and_two_workers_a_url(bucket: Bucket, source: Source, tmp_path: Path) -> None:
    other = Bucket(f"{tmp_path.name}-other")
    other.write("stub/7/model.yaml")
    sources = [source, open_source(other.url, tmp_path / "cache"), open_source(bucket.url, tmp_path / "cache")]
    failed: list[BaseException] = []

    def refresh(one: Source) -> None:
        try:
            one.refresh()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=refresh, args=(one,)) for one in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert [versions(one) for one in sources] == [["stub/1"], ["stub/7"], ["stub/1"]]


def test_a_source_that_cannot_be_listed_may_be_there_later(tmp_path: Path) -> None:
    source = open_source(f"zip://::{tmp_path}/models.zip", tmp_path / "cache")
    with pytest.raises(OSError, match=r"models\.zip cannot be listed: FileNotFoundError"):
        source.refresh()
    with zipfile.ZipFile(tmp_path / "models.zip", "w") as file:
        file.writestr("stub/1/model.yaml", STUB)
    assert source.refresh() == []
    assert versions(source) == ["stub/1"]


@pytest.mark.skipif(importlib.util.find_spec("s3fs") is not None, reason="s3fs is installed")
def test_a_protocol_whose_package_is_missing_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^models: s3:// needs the package s3fs: pip install s3fs$"):
        open_source("s3://key:secret@bucket/models", tmp_path)


def test_a_protocol_that_nobody_knows_is_refused_and_no_password_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"models: nonesuch://\*\*\*@host/models: Protocol not known") as caught:
        open_source("nonesuch://me:secret@host/models", tmp_path)
    assert "secret" not in str(caught.value)


def test_what_is_secret_in_a_url_is_blotted_out() -> None:
    assert redacted("zip://::https://me:secret@host/m.zip?key=secret::x") == "zip://::https://***@host/m.zip?***::x"
    assert redacted("s3://bucket/models") == "s3://bucket/models"


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    (tmp_path / "web").mkdir()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(tmp_path / "web"))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


def test_a_web_server_that_lists_its_folders_is_a_source(web: str, tmp_path: Path) -> None:
    version = tmp_path / "web" / "stub" / "1"
    version.mkdir(parents=True)
    (version / "model.yaml").write_bytes(STUB)
    (version / "a b").write_bytes(b"12")
    source = open_source(web, tmp_path / "cache")
    assert source.refresh() == []
    assert versions(source) == ["stub/1"]
    assert (source.folder / "stub/1/a b").read_bytes() == b"12"
