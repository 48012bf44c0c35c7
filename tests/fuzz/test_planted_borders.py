"""Faults at the borders of typed tasks, of other protocols and of the repository, each of which its target finds."""

import json
from dataclasses import replace
from typing import Any

import pytest
from redis import Redis

from millrace.queue import JobRef, ModelVersion, keys
from millrace.tensors import pack_bytes
from services.frontend.oip.sampling_parameters import SETTINGS
from services.worker.batch import running
from services.worker.repository import outline
from tests.fuzz import planted, sources
from tests.fuzz.http import JSON, Http, case
from tests.fuzz.images import Images
from tests.fuzz.manifests import Manifest
from tests.fuzz.merged import MergedFile
from tests.fuzz.openai import CHAT, TEXT, OpenAI
from tests.fuzz.policies import Policy
from tests.fuzz.sounds import Sounds, wav
from tests.fuzz.sources import ZipSource
from tests.fuzz.target import Finding
from tests.fuzz.task_files import TaskFiles
from tests.fuzz.test_planted import SEED, found_by, opened
from tests.fuzz.text_tensors import TextTensors
from tests.fuzz.typed import Typed
from tests.fuzz.warmups import Warmup
from tests.fuzz.wire import Running


def test_rows_that_go_to_the_wrong_caller_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = running._split

    def shifted(batch: Any, ports: Any, produced: Any) -> Any:
        batch.items.append(batch.items.pop(0))
        return real(batch, ports, produced)

    monkeypatch.setattr(running, "_split", shifted)
    assert "a good request" in found_by(Typed(SEED), 40)


def test_another_format_under_a_good_name_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.worker.tasks.picture.FORMATS", ("PNG", "JPEG", "WEBP", "BMP"))
    assert "neither PNG" in found_by(Images(SEED), 60)


def test_a_sound_whose_header_is_believed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.worker.tasks.sound._check", lambda *_: None)
    with opened(Sounds(SEED)) as target, pytest.raises(Finding, match="ended with"):
        target.run(wav(1, 16, 1, 0, 2, bytes(8_000)))


def test_settings_in_json_that_nobody_checks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.frontend.oip.text_tensors.check_generate", lambda _: ())
    assert "sampling" in found_by(TextTensors(SEED), 400)


def test_settings_in_json_that_become_others_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    setting = SETTINGS["temperature"]
    monkeypatch.setitem(SETTINGS, "temperature", replace(setting, read=lambda value: setting.read(value) / 2))
    assert "temperature became" in found_by(TextTensors(SEED), 20)


def test_a_body_whose_settings_are_lost_is_found() -> None:
    readers = {TEXT: planted.reads_no_settings, CHAT: planted.reads_no_settings}
    assert "temperature became" in found_by(OpenAI(SEED, readers), 20)


def test_an_error_that_nobody_expected_is_found_in_its_answer(running: Running) -> None:
    job = JobRef(ModelVersion("tested", "1"), "default", "broken-text")
    body = json.dumps({"model": "tested", "prompt": "hello", "max_tokens": 4}).encode()
    named = case("POST", TEXT.decode(), JSON | {"millrace-job-id": job.job_id}, body)
    with opened(Http(SEED, running)) as target, Redis.from_url(running.valkey.url) as redis:
        assert target.run(named)
        assert redis.delete(keys.results(job)) == 1
        redis.xadd(keys.results(job), {"of": "no kind"}, "1-0")
        with pytest.raises(Finding, match="status 500"):
            target.run(named)


def test_a_policy_that_is_not_obeyed_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.worker.repository.versions.select", lambda models, _: models)
    assert "are chosen" in found_by(Policy(SEED), 5)


def test_sums_that_nobody_compares_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.worker.repository.manifest.check", lambda *_: None)
    assert "in spite of its sums" in found_by(Manifest(SEED), 40)


def test_a_warm_up_of_any_size_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.worker.repository.warmup._check_sizes", lambda _: None)
    assert "loading fails with" in found_by(Warmup(SEED), 30)


def test_modules_that_are_none_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.worker.tasks.pooling._list", lambda read: read)
    with opened(TaskFiles(SEED)) as target, pytest.raises(Finding, match="loading fails with TypeError"):
        target.run(pack_bytes([b"embedding", b"modules.json", b"7"]))


def test_an_outline_that_sees_less_than_the_runtime_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = outline.read

    def without_functions(path: Any) -> Any:
        model = real(path)
        model.ClearField("functions")
        return model

    monkeypatch.setattr(outline, "read", without_functions)
    assert "operators of" in found_by(MergedFile(SEED), 74)


def test_a_file_that_leaves_its_archive_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.worker.repository.remote._wrong", lambda *_: "")
    name = "tested/1/../../../../escaped"
    with opened(ZipSource(SEED)) as target, pytest.raises(Finding, match="lie around the cache"):
        target.run(sources.archive([{"name": name, "content": "link"}]))
