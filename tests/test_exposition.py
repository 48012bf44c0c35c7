"""Exemplars, other names, and the text of /metrics."""

from collections.abc import Mapping

from prometheus_client import Counter, Histogram

from millrace.exposition import Alias, Aliases, exemplar, expose, make_registry

TRACE = "0af7651916cd43dd8448eb211c80319c"
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5"


def test_only_a_sampled_trace_becomes_an_exemplar() -> None:
    assert exemplar(f"00-{TRACE}-b7ad6b7169203331-01") == {"trace_id": TRACE}
    assert exemplar(f"00-{TRACE}-b7ad6b7169203331-03") == {"trace_id": TRACE}
    for other in (f"00-{TRACE}-b7ad6b7169203331-00", "", "nonsense", f"00-{TRACE}-b7ad6b7169203331-01\n"):
        assert exemplar(other) is None


def test_exemplars_go_to_whoever_asks_for_openmetrics() -> None:
    registry = make_registry()
    seconds = Histogram("seconds", "how long", registry=registry)
    seconds.observe(0.2, {"trace_id": TRACE})
    kind, text = expose(registry, OPENMETRICS)
    assert kind.startswith("application/openmetrics-text")
    assert f'# {{trace_id="{TRACE}"}} 0.2'.encode() in text
    assert b"_created" not in text
    kind, text = expose(registry, "")
    assert (kind.startswith("text/plain"), b"trace_id" in text) == (True, False)


def test_an_alias_adds_up_what_looks_the_same_under_its_name() -> None:
    registry = make_registry()
    done = Counter("done", "how many", ["model", "code"], registry=registry)
    for model, code, count in (("a/1", "OK", 2), ("a/1", "LATE", 3), ("b/1", "OK", 4)):
        done.labels(model, code).inc(count)

    def relabel(labels: Mapping[str, str]) -> dict[str, str] | None:
        return {"name": labels["model"].partition("/")[0]} if labels["model"] != "b/1" else None

    other = Alias(name="their:done_total", of="done", kind="counter", relabel=relabel)
    plain = Alias(name="their_done", of="done", kind="unknown", relabel=relabel)
    registry.register(Aliases([done], [other, plain]))
    value = registry.get_sample_value
    assert value("their:done_total", {"name": "a"}) == value("their_done", {"name": "a"}) == 5
    assert value("their:done_total", {"name": "b"}) is None
    for accept in ("", OPENMETRICS):
        assert b'their_done{name="a"} 5.0' in expose(registry, accept)[1]
