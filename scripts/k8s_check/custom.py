"""Custom resources, by what their authors' own Go types say.

No registry that is reached here has the definitions themselves. npm has models that are generated from the same types:
TypeScript's checker refuses every field that they do not name and every value of a wrong type, and their validators
formats, patterns and what is required. package-lock.json pins them, with hashes; `make` installs them.
"""

import json
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from scripts.k8s_check.renderings import Document, Problem, Rendering, distinct

FOLDER = Path("build/crds")
PACKAGES = {
    "cert-manager.io": "cert-manager",
    "gateway.networking.k8s.io": "gateway-api",
    "keda.sh": "keda",
    "monitoring.coreos.com": "prometheus-operator",
}
"""By API group."""
CUSTOM_GROUPS = frozenset(PACKAGES)
TIMEOUT_S = 120
FOUND = re.compile(r"^checked/(\d+)\.ts\(\d+,\d+\): error TS\d+: (.*)$")


def check(renderings: Sequence[Rendering]) -> list[Problem]:
    """Raises FileNotFoundError where Node or the models are not installed."""
    found = [(where, document) for where, document in distinct(renderings) if _group(document) in CUSTOM_GROUPS]
    if not (FOLDER / "node_modules").is_dir():
        raise FileNotFoundError(f"{FOLDER} has no models")
    labels = [where for where, _ in found]
    _write([document for _, document in found])
    return _check_fields(labels) + _check_values(labels)


def _group(document: Document) -> str:
    return str(document["apiVersion"]).partition("/")[0]


def _module(document: Document) -> str:
    return f"@kubernetes-models/{PACKAGES[_group(document)]}/{document['apiVersion']}/{document['kind']}"


def _write(documents: Sequence[Document]) -> None:
    folder = FOLDER / "checked"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    for number, document in enumerate(documents):
        kind, text = document["kind"], json.dumps(document, indent=1)
        imported = f'import type {{ I{kind} }} from "{_module(document)}";'
        (folder / f"{number}.ts").write_text(f"{imported}\nexport const document: I{kind} = {text};\n")
    listed = [
        {"id": number, "module": _module(document), "kind": document["kind"], "document": document}
        for number, document in enumerate(documents)
    ]
    (folder / "documents.json").write_text(json.dumps(listed))


def _check_fields(labels: Sequence[str]) -> list[Problem]:
    done = _run("node_modules/.bin/tsc", "--pretty", "false", "-p", ".")
    found = [match for line in done.stdout.splitlines() if (match := FOUND.match(line))]
    if done.returncode and not found:
        raise ValueError(f"tsc failed: {(done.stderr or done.stdout)[-500:]}")
    return [Problem(where=labels[int(match[1])], what=match[2]) for match in found]


def _check_values(labels: Sequence[str]) -> list[Problem]:
    done = _run("node", "validate.mjs")
    if done.returncode:
        raise ValueError(f"validate.mjs failed: {done.stderr[-500:]}")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return [Problem(where=labels[line["id"]], what=line["problem"]) for line in lines]


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
