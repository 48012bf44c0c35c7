"""Whether objects that name others name what is there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from millrace.errors import InvalidRequest
from millrace.keda.externalscaler_pb2 import ScaledObjectRef
from scripts.k8s_check.pods import Pod, pods
from scripts.k8s_check.renderings import Document, Rendering, label
from services.frontend.scaler.asked import parse

DOCS = Path("docs/kubernetes.md")


def selectors(rendering: Rendering) -> Iterator[tuple[str, str]]:
    """Every Service, budget and monitor selects a pod. (Policies may be for pods that are not there.)"""
    labels = [pod.labels for pod in pods(rendering)]
    for document in rendering.documents:
        wanted = _selector(document)
        if wanted is not None and not any(wanted.items() <= present.items() for present in labels):
            yield label(document), f"selects no pod: {wanted}"


def _selector(document: Document) -> dict[str, str] | None:
    spec: dict[str, Any] = document.get("spec", {})
    if document["kind"] == "Service":
        return dict(spec["selector"])
    if document["kind"] in ("PodDisruptionBudget", "PodMonitor"):
        return dict(spec["selector"]["matchLabels"])
    return None


def ports(rendering: Rendering) -> Iterator[tuple[str, str]]:
    """Every port that a Service leads to, or a monitor asks, is named by a pod that it selects."""
    for document in rendering.documents:
        wanted = _selector(document)
        named = {
            port["name"]
            for pod in pods(rendering)
            if wanted is not None and wanted.items() <= pod.labels.items()
            for container in pod.spec["containers"]
            for port in container.get("ports", ())
        }
        for port in _ports_of(document) - named:
            yield label(document), f"port {port} is none of the pods'"


def _ports_of(document: Document) -> set[str]:
    spec = document.get("spec", {})
    if document["kind"] == "Service":
        return {str(port["targetPort"]) for port in spec["ports"]}
    return {str(endpoint["port"]) for endpoint in spec.get("podMetricsEndpoints", ())}


def scale_targets(rendering: Rendering) -> Iterator[tuple[str, str]]:
    """They are there, only one thing scales each, and no number of replicas of theirs argues with it."""
    workloads = {(document["kind"], document["metadata"]["name"]): document for document in rendering.documents}
    scaled = set()
    for document in rendering.documents:
        if document["kind"] not in ("ScaledObject", "HorizontalPodAutoscaler"):
            continue
        target = document["spec"]["scaleTargetRef"]["kind"], document["spec"]["scaleTargetRef"]["name"]
        if target not in workloads:
            yield label(document), f"scales {target[0]}/{target[1]}, which is not there"
        elif "replicas" in workloads[target]["spec"]:
            yield label(document), f"{target[0]}/{target[1]} says replicas, too"
        if target in scaled:
            yield label(document), f"{target[0]}/{target[1]} is scaled twice"
        scaled.add(target)


def backends(rendering: Rendering) -> Iterator[tuple[str, str]]:
    """Every route, and every scaler's address, is a Service's port."""
    open_ports = {
        (document["metadata"]["name"], port["port"])
        for document in rendering.documents
        if document["kind"] == "Service"
        for port in document["spec"]["ports"]
    }
    for document in rendering.documents:
        for name, port in _backends_of(document):
            if (name, port) not in open_ports:
                yield label(document), f"leads to {name}:{port}, which no Service has"


def _backends_of(document: Document) -> Iterator[tuple[str, int]]:
    spec = document.get("spec", {})
    if document["kind"] in ("GRPCRoute", "HTTPRoute"):
        for rule in spec["rules"]:
            yield from ((backend["name"], backend["port"]) for backend in rule["backendRefs"])
    for trigger in spec.get("triggers", ()) if document["kind"] == "ScaledObject" else ():
        host, _, port = trigger["metadata"]["scalerAddress"].rpartition(":")
        yield host.partition(".")[0], int(port)


def scalers(rendering: Rendering) -> Iterator[tuple[str, str]]:
    """The frontends' scaler understands what a ScaledObject asks of it."""
    for document in rendering.documents:
        for trigger in document["spec"]["triggers"] if document["kind"] == "ScaledObject" else ():
            try:
                parse(ScaledObjectRef(scalerMetadata=trigger["metadata"]))
            except InvalidRequest as refused:
                yield label(document), f"the scaler refuses it: {refused}"


def sources(rendering: Rendering) -> Iterator[tuple[str, str]]:
    """Every ConfigMap is there; every Secret comes of a Certificate, or docs/kubernetes.md says how it is made."""
    maps = {document["metadata"]["name"] for document in rendering.documents if document["kind"] == "ConfigMap"}
    made = {document["spec"]["secretName"] for document in rendering.documents if document["kind"] == "Certificate"}
    told = DOCS.read_text()
    for pod in pods(rendering):
        yield from ((pod.name, f"ConfigMap {name} is not there") for name in _maps_of(pod) - maps)
        for name in _secrets_of(pod) - made:
            if f"secret generic {name}" not in told:
                yield pod.name, f"Secret {name} is made by nothing, and {DOCS} does not say how"


def _maps_of(pod: Pod) -> set[str]:
    return {
        source["configMapRef"]["name"]
        for container in pod.containers
        for source in container.get("envFrom", ())
        if "configMapRef" in source
    }


def _secrets_of(pod: Pod) -> set[str]:
    return {volume["secret"]["secretName"] for volume in pod.spec.get("volumes", ()) if "secret" in volume}


def namespaces(rendering: Rendering) -> Iterator[tuple[str, str]]:
    """Pod Security is enforced where the pods are."""
    enforced = {
        document["metadata"]["name"]
        for document in rendering.documents
        if document["kind"] == "Namespace"
        and document["metadata"].get("labels", {}).get("pod-security.kubernetes.io/enforce") == "restricted"
    }
    for document in rendering.documents:
        namespace = document["metadata"].get("namespace")
        if document["kind"] in ("Deployment", "StatefulSet") and namespace not in enforced:
            yield label(document), f"namespace {namespace} does not enforce Pod Security's `restricted`"
