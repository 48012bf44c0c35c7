"""What a frontend or a worker says of what stands open, and when it refuses to start."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from millrace.security import check_closed
from millrace.settings import Settings
from services.frontend.security import check_security
from services.frontend.settings import FrontendSettings
from tests.certificates import Authority

DOORS = {
    "tls_cert": "MILLRACE_TLS_CERT",
    "api_keys": "MILLRACE_API_KEYS",
    "health_address": "MILLRACE_HEALTH_ADDRESS",
    "redis_url": "MILLRACE_REDIS_URL",
}
CLOSED: dict[str, Any] = {
    "redis_url": "rediss://:secret@redis:6379/0",
    "health_address": "127.0.0.1:8003",
    "tls_cert": Path("server.crt"),
    "tls_key": Path("server.key"),
    "api_keys": Path("tenants.yaml"),
}


@pytest.fixture(autouse=True)
def nothing_blocks() -> None:
    """The checks are made before anything is served."""


def frontend(**settings: Any) -> FrontendSettings:
    return FrontendSettings(security="required", **settings)


def test_everything_that_is_missing_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="security is required") as refused:
        check_security(frontend())
    assert all(setting in str(refused.value) for setting in DOORS.values())


@pytest.mark.parametrize("door", DOORS)
def test_only_what_is_missing_is_said(door: str) -> None:
    settings = {name: value for name, value in CLOSED.items() if name != door}
    with pytest.raises(ValueError, match=DOORS[door]) as refused:
        check_security(frontend(**settings))
    assert not any(setting in str(refused.value) for setting in DOORS.values() if setting != DOORS[door])


@pytest.mark.parametrize(
    "url",
    [
        "rediss://:secret@redis:6379",
        "rediss+sentinel://:secret@a:26379,b:26379/mymaster",
        "rediss+cluster://user:secret@a:6379,b:6379",
        "unix://:secret@/run/redis.sock",
    ],
)
def test_a_frontend_that_is_closed_starts_without_a_word(url: str) -> None:
    with capture_logs() as logs:
        check_security(frontend(**CLOSED | {"redis_url": url}))
        check_security(FrontendSettings(security="off", **CLOSED | {"redis_url": url}))
    assert logs == []


def test_tokens_are_as_good_as_keys_but_certificates_of_callers_are_not() -> None:
    without = {name: value for name, value in CLOSED.items() if name != "api_keys"}
    check_security(frontend(**without, jwks=Path("jwks.json")))
    with pytest.raises(ValueError, match="MILLRACE_JWKS"):
        check_security(frontend(**without, tls_client_ca=Path("ca.crt")))


def test_one_line_says_what_stands_open_where_that_is_allowed() -> None:
    with capture_logs() as logs:
        check_security(FrontendSettings())
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("security.off", "warning")
    assert len(line["open"]) == len(DOORS)


def test_a_worker_asks_the_same_of_redis() -> None:
    with pytest.raises(ValueError, match="MILLRACE_REDIS_URL"):
        check_closed(Settings(security="required"))
    with pytest.raises(ValueError, match="MILLRACE_REDIS_PASSWORD_FILE"):
        check_closed(Settings(security="required", redis_url="rediss://redis:6379"))
    check_closed(Settings(security="required", redis_url=CLOSED["redis_url"]))


def test_a_certificate_for_redis_and_its_password_may_come_from_files(tmp_path: Path) -> None:
    password, pair = tmp_path / "password", Authority(tmp_path).issue("millrace")
    password.write_text("secret\n")
    check_closed(Settings(security="required", redis_url="rediss://redis", redis_password_file=password))
    check_closed(Settings(security="required", redis_url="rediss://redis", redis_cert=pair.cert, redis_key=pair.key))


@pytest.mark.parametrize("service", ["frontend", "worker"])
def test_the_process_says_why_and_ends_with_2(service: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLRACE_")}
    models = {"MILLRACE_MODELS": "/nonexistent"} if service == "worker" else {}
    ended = subprocess.run(
        [sys.executable, "-m", f"services.{service}"],
        env=environment | models | {"MILLRACE_SECURITY": "required"},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert ended.returncode == 2
    assert "security is required" in ended.stdout + ended.stderr
