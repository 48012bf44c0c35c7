"""The manifests of deploy/k8s, and that what checks them finds what is wrong."""

import copy
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from millrace.process import REFUSED
from scripts.k8s_check import alerts, built_in, conventions, custom, security
from scripts.k8s_check.__main__ import NOT_CHECKED, main
from scripts.k8s_check.pods import pods
from scripts.k8s_check.renderings import Document, Problem, Rendering, render_overlays

Break = Callable[[dict[str, Any]], object]
needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
needs_checks = pytest.mark.skipif(not security.COMMAND.exists(), reason="make k8s-check was never run: no build/checks")
needs_models = pytest.mark.skipif(not (custom.FOLDER / "node_modules").is_dir(), reason="no build/crds")
pytestmark = needs_kubectl


@pytest.fixture(scope="module")
def overlays() -> list[Rendering]:
    return render_overlays()


@pytest.fixture
def production(overlays: list[Rendering]) -> Rendering:
    return next(copy.deepcopy(overlay) for overlay in overlays if overlay.name == "production")


def find(rendering: Rendering, kind: str, name: str) -> Document:
    return next(
        document
        for document in rendering.documents
        if document["kind"] == kind and document["metadata"]["name"] == name
    )


def settings_of(rendering: Rendering, name: str) -> dict[str, str]:
    """The ConfigMap's, whose name ends with a hash."""
    found = (document for document in rendering.documents if document["kind"] == "ConfigMap")
    data = next(document["data"] for document in found if document["metadata"]["name"].startswith(f"{name}-"))
    assert isinstance(data, dict)
    return data


def frontend(rendering: Rendering) -> dict[str, Any]:
    spec = find(rendering, "Deployment", "millrace-frontend")["spec"]["template"]["spec"]
    assert isinstance(spec, dict)
    return spec


def told(problems: list[Problem]) -> str:
    return "\n".join(f"{problem.where}: {problem.what}" for problem in problems)


def test_the_manifests_keep_every_convention(overlays: list[Rendering]) -> None:
    assert told(conventions.check(overlays)) == ""


BROKEN: dict[str, tuple[Break, str]] = {
    "root": (lambda spec: spec["securityContext"].update(runAsUser=0), "not run as a numbered user"),
    "another's user": (lambda spec: spec["securityContext"].update(runAsUser=1000), "runs as user 1000, its image as"),
    "no seccomp": (lambda spec: spec["securityContext"].pop("seccompProfile"), "seccompProfile"),
    "a token": (lambda spec: spec.pop("automountServiceAccountToken"), "token of the service account"),
    "the host's network": (lambda spec: spec.update(hostNetwork=True), "hostNetwork is on"),
    "the host's folder": (
        lambda spec: spec["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
        "a volume is the host's",
    ),
    "privileges": (
        lambda spec: spec["containers"][0]["securityContext"].pop("allowPrivilegeEscalation"),
        "may escalate",
    ),
    "a root that is written": (
        lambda spec: spec["containers"][0]["securityContext"].pop("readOnlyRootFilesystem"),
        "its root can be written",
    ),
    "capabilities": (lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"), "keeps capabilities"),
    "no probe": (lambda spec: spec["containers"][0].pop("readinessProbe"), "no readinessProbe"),
    "a probe of nothing": (
        lambda spec: spec["containers"][0]["livenessProbe"]["httpGet"].update(port="nowhere"),
        "asks port nowhere",
    ),
    "no time to drain": (lambda spec: spec.update(terminationGracePeriodSeconds=28), "is not above 28"),
    "service links": (lambda spec: spec.pop("enableServiceLinks"), "enableServiceLinks"),
    "no such volume": (lambda spec: spec["volumes"].pop(), "which is no volume"),
    "an address without a port": (lambda spec: spec["containers"][0]["ports"].pop(), "its addresses"),
    "no such setting": (
        lambda spec: spec["containers"][0].update(env=[{"name": "MILLRACE_DRAIN", "value": "5"}]),
        "MILLRACE_DRAIN is no setting of a frontend",
    ),
    "no such value": (
        lambda spec: spec["containers"][0].update(env=[{"name": "MILLRACE_DURABILITY", "value": "eternal"}]),
        "MILLRACE_DURABILITY: ",
    ),
    "a file of no volume": (
        lambda spec: spec["containers"][0].update(env=[{"name": "MILLRACE_JWKS", "value": "/elsewhere/jwks.json"}]),
        "/elsewhere/jwks.json is in no volume",
    ),
    "no such ConfigMap": (
        lambda spec: spec["containers"][0]["envFrom"].append({"configMapRef": {"name": "nobody"}}),
        "ConfigMap nobody is not there",
    ),
    "a Secret of nobody": (
        lambda spec: spec["volumes"].append({"name": "x", "secret": {"secretName": "nobody"}}),
        "Secret nobody is made by nothing",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_pod_is_found(production: Rendering, case: str) -> None:
    break_it, words = BROKEN[case]
    break_it(frontend(production))
    assert words in told(conventions.check([production]))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("MILLRACE_TLS_CERT", "and no MILLRACE_TLS_CERT"),
        ("MILLRACE_HEALTH_ADDRESS", "and no MILLRACE_HEALTH_ADDRESS"),
        ("MILLRACE_REDIS_URL", "Redis is reached without TLS"),
    ],
)
def test_required_security_is_not_there_without_its_parts(production: Rendering, setting: str, words: str) -> None:
    del settings_of(production, "millrace-frontend")[setting]
    assert words in told(conventions.check([production]))


def test_required_security_is_not_there_without_keys(production: Rendering) -> None:
    settings = settings_of(production, "millrace-frontend")
    del settings["MILLRACE_API_KEYS"], settings["MILLRACE_JWKS"]
    assert "nothing that tells callers apart" in told(conventions.check([production]))


def test_a_frontend_of_production_does_not_start_without_its_files(production: Rendering) -> None:
    pod = next(pod for pod in pods(production) if pod.name == "Deployment/millrace-frontend")
    command = [sys.executable, "-m", "services.frontend"]
    done = subprocess.run(
        command, env=os.environ | pod.settings, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == REFUSED
    assert "/redis/" in done.stdout + done.stderr


def test_an_overlay_without_models_is_found(production: Rendering) -> None:
    del settings_of(production, "millrace-worker")["MILLRACE_MODELS"]
    assert "a component models-… is missing" in told(conventions.check([production]))


def _without(rendering: Rendering, kind: str, name: str) -> Rendering:
    gone = find(rendering, kind, name)
    return replace(rendering, documents=tuple(document for document in rendering.documents if document is not gone))


@pytest.mark.parametrize(
    ("kind", "name", "words"),
    [
        ("Deployment", "millrace-worker", "scales Deployment/millrace-worker, which is not there"),
        ("Deployment", "millrace-worker", "selects no pod"),
        ("Service", "millrace-frontend", "leads to millrace-frontend:8001, which no Service has"),
        ("Service", "millrace-scaler", "leads to millrace-scaler:8004, which no Service has"),
        ("Certificate", "millrace-frontend", "Secret millrace-frontend-tls is made by nothing"),
        ("Namespace", "millrace", "does not enforce Pod Security"),
    ],
)
def test_what_others_name_is_missed(production: Rendering, kind: str, name: str, words: str) -> None:
    assert words in told(conventions.check([_without(production, kind, name)]))


def test_two_things_that_scale_one_are_found(production: Rendering) -> None:
    find(production, "HorizontalPodAutoscaler", "millrace-frontend")["spec"]["scaleTargetRef"]["name"] = (
        "millrace-worker"
    )
    assert "Deployment/millrace-worker is scaled twice" in told(conventions.check([production]))


def test_a_number_of_replicas_that_argues_with_a_scaler_is_found(production: Rendering) -> None:
    find(production, "Deployment", "millrace-worker")["spec"]["replicas"] = 3
    assert "Deployment/millrace-worker says replicas, too" in told(conventions.check([production]))


def test_what_the_scaler_does_not_understand_is_found(production: Rendering) -> None:
    metadata = find(production, "ScaledObject", "millrace-worker")["spec"]["triggers"][0]["metadata"]
    metadata["targetWaitSeconds"] = "soon"
    problems = told(conventions.check([production]))
    assert "the scaler refuses it" in problems
    assert "targetWaitSeconds" in problems


def test_a_port_that_no_pod_names_is_found(production: Rendering) -> None:
    find(production, "Service", "millrace-frontend")["spec"]["ports"][0]["targetPort"] = "gprc"
    assert "port gprc is none of the pods'" in told(conventions.check([production]))


def test_alerts_that_are_not_todays_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "TARGET", tmp_path / "alerts.yaml")
    alerts.TARGET.write_text(alerts.make().replace("alert: ", "alert: Old", 1))
    assert "is not today's alerts" in told(conventions.check([]))


def test_what_cannot_be_rendered_is_told_in_kustomizes_words(tmp_path: Path) -> None:
    broken = tmp_path / "overlays" / "broken"
    broken.mkdir(parents=True)
    (broken / "kustomization.yaml").write_text("resources: [nowhere.yaml]\n")
    with pytest.raises(ValueError, match=r"(?s)broken: .*nowhere\.yaml"):
        render_overlays(tmp_path)


def test_without_kubectl_nothing_is_said_to_be_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "argv", ["k8s_check"])
    assert main() == NOT_CHECKED
    assert "not checked: kubectl is not installed" in capsys.readouterr().err


@needs_checks
def test_an_unknown_field_of_a_kind_of_kubernetes_is_refused(production: Rendering) -> None:
    frontend(production)["containers"][0]["readinesProbe"] = {}
    problems = told(built_in.check([production]))
    assert "'readinesProbe' was unexpected" in problems
    assert all(version in problems for version in built_in.VERSIONS)


def _break_custom(rendering: Rendering) -> Iterator[tuple[Document, str, object, str]]:
    """Where, which field, what it becomes, and what is then said."""
    trigger = find(rendering, "ScaledObject", "millrace-worker")["spec"]["triggers"][0]
    yield trigger, "metdata", {}, "'\"metdata\"' does not exist"
    yield find(rendering, "Certificate", "millrace-frontend")["spec"], "issuerRef", 3, "Type 'number' is not assignable"
    yield find(rendering, "GRPCRoute", "millrace")["spec"]["rules"][0], "timeouts", {}, "'\"timeouts\"' does not exist"
    monitor = find(rendering, "PodMonitor", "millrace-worker")["spec"]
    yield monitor["podMetricsEndpoints"][0], "interval", "often", "interval must match pattern"
    yield find(rendering, "HTTPRoute", "millrace")["spec"]["rules"][0]["timeouts"], "request", "ever", "must match"
    yield find(rendering, "BackendTLSPolicy", "millrace-frontend"), "kind", "BackendTLSPolity", "BackendTLSPolity"


@needs_models
def test_custom_resources_are_held_against_their_types(production: Rendering) -> None:
    broken = replace(copy.deepcopy(production), name="broken")
    expected = []
    for place, field, value, words in _break_custom(broken):
        place[field] = value
        expected.append(words)
    problems = custom.check([production, broken])
    assert [words for words in expected if words not in told(problems)] == []
    assert {problem.where.partition(":")[0] for problem in problems} == {"broken"}


@needs_checks
def test_what_checkov_finds_is_a_problem_and_so_is_a_skip_without_a_reason(production: Rendering) -> None:
    deployment = find(production, "Deployment", "millrace-frontend")
    deployment["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privileged"] = True
    deployment["metadata"]["annotations"] = {"checkov.io/skip1": "CKV_K8S_43="}
    worker = replace(production, documents=(deployment,))
    problems = told(list(security.check([worker]).problems))
    assert "CKV_K8S_16" in problems
    assert "CKV_K8S_43 of Deployment.millrace.millrace-frontend: is skipped without a reason" in problems
