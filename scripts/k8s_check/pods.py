"""What is held of every pod, by itself."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.k8s_check.renderings import Document, Rendering, label

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job")
CLOSING_S = {"frontend": 3, "worker": 5}
"""What the services take behind MILLRACE_DRAIN_S (services/frontend/server.py, services/worker/worker.py)."""
DEFAULT_GRACE_S = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A workload's template. `settings` are those of its first container that begin with MILLRACE_, by name; what the
    cluster fills in (a share of a resource) is a 1."""

    name: str
    labels: dict[str, str]
    spec: dict[str, Any]
    settings: dict[str, str]

    @property
    def containers(self) -> list[dict[str, Any]]:
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]


def pods(rendering: Rendering) -> Iterator[Pod]:
    maps = {
        document["metadata"]["name"]: document.get("data", {})
        for document in rendering.documents
        if document["kind"] == "ConfigMap"
    }
    for document in rendering.documents:
        if document["kind"] in WORKLOADS:
            template = document["spec"]["template"]
            yield Pod(
                name=label(document),
                labels=template["metadata"]["labels"],
                spec=template["spec"],
                settings=_settings(template["spec"]["containers"][0], maps),
            )


def _settings(container: Document, maps: dict[str, dict[str, str]]) -> dict[str, str]:
    """As Kubernetes does: a later source wins, and `env` over all of them."""
    told: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        told |= maps.get(source["configMapRef"]["name"], {}) if "configMapRef" in source else {}
    for variable in container.get("env", ()):
        told[variable["name"]] = str(variable.get("value", "1"))
    return {name: value for name, value in told.items() if name.startswith("MILLRACE_")}


def restricted(pod: Pod) -> Iterator[str]:
    """Pod Security's profile `restricted`, and a root that cannot be written, both said by the pod itself."""
    security = pod.spec.get("securityContext", {})
    if security.get("runAsNonRoot") is not True or not security.get("runAsUser"):
        yield "the pod does not run as a numbered user that is not root"
    if security.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "no seccompProfile RuntimeDefault"
    if pod.spec.get("automountServiceAccountToken") is not False:
        yield "a token of the service account is mounted"
    for host in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(host):
            yield f"{host} is on"
    if any("hostPath" in volume for volume in pod.spec.get("volumes", ())):
        yield "a volume is the host's"
    for container in pod.containers:
        yield from (f"container {container['name']}: {lack}" for lack in _unrestricted(container))


def runs_as_its_image(pod: Pod) -> Iterator[str]:
    """The user that the image's files are for (`USER` in the service's Dockerfile)."""
    service = service_of(pod)
    if service is None:
        return
    users = re.findall(r"^USER (\d+):\d+$", Path(f"services/{service}/Dockerfile").read_text(), re.MULTILINE)
    user = pod.spec.get("securityContext", {}).get("runAsUser")
    if [str(user)] != users[-1:]:
        yield f"runs as user {user}, its image as {users[-1:]}"


def _unrestricted(container: Document) -> Iterator[str]:
    security = container.get("securityContext", {})
    if security.get("allowPrivilegeEscalation") is not False:
        yield "may escalate its privileges"
    if security.get("readOnlyRootFilesystem") is not True:
        yield "its root can be written"
    if security.get("capabilities") != {"drop": ["ALL"]}:
        yield "keeps capabilities"


def probes(pod: Pod) -> Iterator[str]:
    """All three, of a port that the container names."""
    for container in pod.spec["containers"]:
        ports = {port["name"] for port in container.get("ports", ())}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(kind)
            if probe is None:
                yield f"container {container['name']}: no {kind}"
                continue
            for how in ("httpGet", "tcpSocket", "grpc"):
                if how in probe and probe[how]["port"] not in ports:
                    yield f"container {container['name']}: {kind} asks port {probe[how]['port']}, which it has not"


def drains_in_time(pod: Pod) -> Iterator[str]:
    """Killed is who is not done when the grace period ends; preStop counts."""
    service = service_of(pod)
    if service is None:
        return
    container = pod.spec["containers"][0]
    waits_s = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
    needs_s = waits_s + float(pod.settings.get("MILLRACE_DRAIN_S", "nan")) + CLOSING_S[service]
    grace_s = pod.spec.get("terminationGracePeriodSeconds", DEFAULT_GRACE_S)
    if not needs_s < grace_s:
        yield f"terminationGracePeriodSeconds {grace_s} is not above {needs_s}: preStop, drain, and what then closes"


def service_of(pod: Pod) -> str | None:
    """`frontend` or `worker`; None: another's."""
    name = str(pod.spec["containers"][0]["name"])
    return name if name in CLOSING_S else None


def quiet_environment(pod: Pod) -> Iterator[str]:
    """Names such as MILLRACE_VALKEY_PORT would stand among the settings."""
    if pod.spec.get("enableServiceLinks") is not False:
        yield "enableServiceLinks is not off"


def mounts(pod: Pod) -> Iterator[str]:
    """The claims of a StatefulSet are volumes too; no service has one."""
    volumes = {volume["name"] for volume in pod.spec.get("volumes", ())}
    for container in pod.containers if service_of(pod) else ():
        for mount in container.get("volumeMounts", ()):
            if mount["name"] not in volumes:
                yield f"container {container['name']} mounts {mount['name']}, which is no volume"
