"""`python -m scripts.k8s_check`: a table, what is wrong, and status 1 where something is; 2 where a tool is missing."""

import argparse
import sys
from collections.abc import Callable, Sequence

from scripts.k8s_check import alerts, built_in, conventions, custom, renderings, security
from scripts.k8s_check.renderings import Problem, Rendering

WRONG, NOT_CHECKED = 1, 2
CHECKS: dict[str, Callable[[Sequence[Rendering]], list[Problem]]] = {
    "built-in": built_in.check,
    "custom": custom.check,
    "conventions": conventions.check,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m scripts.k8s_check", description=__doc__)
    parser.add_argument("--write-alerts", action="store_true", help="make the operator's rules of deploy/monitoring")
    if parser.parse_args().write_alerts:
        alerts.TARGET.write_text(alerts.make())
        return 0
    try:
        return _report([*renderings.render_overlays(), *renderings.render_components()])
    except (FileNotFoundError, ValueError) as error:
        print(f"not checked: {error}", file=sys.stderr)
        return NOT_CHECKED if isinstance(error, FileNotFoundError) else WRONG


def _report(rendered: Sequence[Rendering]) -> int:
    found = {name: check(rendered) for name, check in CHECKS.items()}
    verdict = security.check(rendered)
    found["checkov"] = list(verdict.problems)
    _print_table(rendered, found)
    print(f"\ncheckov: {verdict.passed} passed, {len(verdict.problems)} failed, {len(verdict.skips)} skipped")
    for skip, why in verdict.skips.items():
        print(f"  {skip}: {why}")
    wrong = [(name, problem) for name, problems in found.items() for problem in problems]
    for name, problem in wrong:
        print(f"{name}: {problem.where}: {problem.what}")
    print(f"\n{len(wrong)} problems" if wrong else "\nnothing is wrong; nothing of it was ever applied to a cluster")
    return WRONG if wrong else 0


def _print_table(rendered: Sequence[Rendering], found: dict[str, list[Problem]]) -> None:
    wide = max(len(rendering.name) for rendering in rendered)
    print(f"{'rendered':<{wide}}  objects  custom")
    for rendering in rendered:
        custom_kinds = sum(
            document["apiVersion"].partition("/")[0] in custom.CUSTOM_GROUPS for document in rendering.documents
        )
        print(f"{rendering.name:<{wide}}  {len(rendering.documents):>7}  {custom_kinds:>6}")
    print("".join(f"\n{name:<12} {len(problems)} problems" for name, problems in found.items()))


if __name__ == "__main__":
    sys.exit(main())
