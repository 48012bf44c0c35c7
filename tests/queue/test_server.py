"""What a Redis URL says, what it may not say, and what is told of it."""

from pathlib import Path

import pytest

from millrace.queue import connect
from millrace.queue.server import Server
from millrace.settings import Settings


@pytest.mark.parametrize(
    ("url", "kind", "tls", "addresses", "db"),
    [
        ("redis://127.0.0.1:6380/2", "single", False, (("127.0.0.1", 6380),), 2),
        ("redis://", "single", False, (("localhost", 6379),), 0),
        ("rediss://u:p@redis", "single", True, (("redis", 6379),), 0),
        ("redis://[::1]:7?db=3", "single", False, (("::1", 7),), 3),
        ("unix:///run/redis.sock?db=1", "unix", False, (), 1),
        ("redis+sentinel://a,b:1/main/4", "sentinel", False, (("a", 26379), ("b", 1)), 4),
        ("rediss+sentinel://u:p@a/main", "sentinel", True, (("a", 26379),), 0),
        ("redis+cluster://a:1,b", "cluster", False, (("a", 1), ("b", 6379)), 0),
        ("rediss+cluster://a/0", "cluster", True, (("a", 6379),), 0),
    ],
)
def test_a_url_says_what_is_where(url: str, kind: str, tls: bool, addresses: tuple[object, ...], db: int) -> None:
    place = Server(url=url).place()
    assert (place.kind, place.tls, place.addresses, place.db) == (kind, tls, addresses, db)


def test_names_and_passwords_are_percent_decoded() -> None:
    place = Server(url="redis+sentinel://u%40x:p%2F%3A@a/m%2F1?sentinel_user=s&sentinel_password=q%3D").place()
    assert (place.login.user, place.login.read(), place.primary) == ("u@x", "p/:", "m/1")
    assert (place.sentinel_login.user, place.sentinel_login.read()) == ("s", "q=")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://a", "begins with"),
        ("redis://a,b", "names one server"),
        ("redis://a:x", "HOST:PORT"),
        ("redis://a/x", "a number"),
        ("rediss://a?ssl_cert_reqs=none", "takes no ssl_cert_reqs"),
        ("redis+sentinel://a", "names the primary"),
        ("redis+cluster://a/1", "no databases"),
        ("redis+sentinel://a/m?sentinel_password=x&sentinel_password_file=y", "one of them must go"),
    ],
)
def test_a_url_that_cannot_be_followed_is_refused(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        connect(url)


def test_certificates_are_refused_where_nothing_is_encrypted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="without TLS"):
        Server(url="redis://a", ca=tmp_path / "ca").place()


def test_a_password_is_in_one_place(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="one of them must go"):
        Server(url="redis://:p@a", password_file=tmp_path / "password").place()


@pytest.mark.parametrize("text", ["", "\n", "one\ntwo\n"])
def test_a_password_file_that_holds_no_password_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text(text)
    with pytest.raises(ValueError, match="must hold one line"):
        Settings(redis_password_file=tmp_path / "password").redis_server()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing cannot be read"):
        Settings(redis_password_file=tmp_path / "missing").redis_server()
    with pytest.raises(ValueError, match="cannot be read"):
        Settings(redis_url="rediss://a", redis_ca=tmp_path / "missing").redis_server()


def test_certificates_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("no certificate")
    with pytest.raises(ValueError, match="cannot be used"):
        Settings(redis_url="rediss://a", redis_ca=tmp_path / "ca").redis_server()


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:hunter2@a/0",
        "redis://:sec/hunter2@a",
        "redis://:sec?hunter2@a",
        "redis://:s@hunter2@a",
        "unix://:hunter2@/run/redis.sock",
        "redis+sentinel://:hunter2@a,b/m?sentinel_password=hunter2",
        "redis+sentinel://a/m?sentinel_password=s@hunter2",
        "rediss+cluster://u:hunter2@a,b:1",
        "nonsense://:hunter2@a",
    ],
)
def test_a_secret_is_never_told(url: str, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("filed")
    settings = Settings(redis_url=url, redis_password_file=tmp_path / "password")
    told = f"{settings.redacted()} {Server(url=url)!r} {Server(url=url).describe()}"
    assert "hunter2" not in told
    assert "filed" not in told


def test_what_is_no_secret_is_told() -> None:
    assert Server(url="redis+sentinel://u:p@a,b:1/m?sentinel_user=s").describe() == "redis+sentinel://***@a,b:1/m"
    assert Server(url="redis://127.0.0.1:6379/0").describe() == "redis://127.0.0.1:6379/0"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://u:p@a", "without TLS"),
        ("rediss://a", "no password"),
        ("rediss://u:p@a", ""),
        ("unix:///run/redis.sock", ""),
    ],
)
def test_a_server_that_could_be_anybody_is_told_of(url: str, said: str) -> None:
    assert said in Server(url=url).weakness
    assert bool(said) == bool(Server(url=url).weakness)
