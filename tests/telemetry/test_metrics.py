"""The rule of metrics' names, and labels that do not grow."""

import importlib
import inspect
import pkgutil

import pytest
from prometheus_client import CollectorRegistry, Counter, generate_latest

import p2pmirror
from p2pmirror.telemetry import metrics
from p2pmirror.telemetry.metrics import Room, Tally


def metrics_classes():
    """Find every room's metrics: the classes in `p2pmirror.**.metrics` that take a registry."""
    for module in pkgutil.walk_packages(p2pmirror.__path__, "p2pmirror."):
        if module.name.endswith(".metrics") and module.name != metrics.__name__:
            for name, value in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if name.endswith("Metrics") and value.__module__ == module.name:
                    yield value


def test_all_metrics_of_the_agent_keep_the_rule():
    """Every room's metrics fit in one registry, and their names, labels and documentation pass the lint."""
    registry = metrics.new_registry("1.2.3")
    classes = list(metrics_classes())
    assert "FrontMetrics" in {each.__name__ for each in classes}
    for each in classes:
        needs_names = "registries" in inspect.signature(each).parameters
        each(registry, ["docker.io"]) if needs_names else each(registry)
    assert metrics.lint(registry) == []


def test_the_lint_complains():
    """Names outside the rule, labels outside it and missing documentation are told one by one."""
    registry = CollectorRegistry()
    Counter("p2pmirror_front_requests", "A sentence.", registry=registry)  # the client adds _total
    assert metrics.lint(registry) == []
    Counter("requests", "A sentence.", registry=registry)
    Counter("p2pmirror_kitchen_requests", "A sentence.", registry=registry)
    Counter("p2pmirror_front_more", "", registry=registry)
    Counter("p2pmirror_front_others", "A sentence.", ["Label"], registry=registry).labels("x")
    complaints = metrics.lint(registry)
    for part in ("requests_total is not", "kitchen is no room", "nothing says", "label Label"):
        assert sum(part in complaint for complaint in complaints) == 1
    assert len(complaints) == 4


@pytest.mark.parametrize(
    ("kind", "name"),
    [("counter", "requests"), ("histogram", "size"), ("gauge", "things"), ("gauge", "Bad_bytes"), ("counter", "total")],
)
def test_a_wrong_name_cannot_be_made(kind, name):
    """A metric without its unit, or without anything but its unit, is refused where it is made."""
    room = Room(CollectorRegistry(), "front")
    with pytest.raises(ValueError, match="p2pmirror_front_"):
        room.histogram(name, "A.", buckets=[1]) if kind == "histogram" else getattr(room, kind)(name, "A.")


def test_labels_are_bounded():
    """Values outside a closed set, or beyond the number allowed, are counted as `other`; known ones stay known."""
    registry = CollectorRegistry()
    family = Room(registry, "upstream").counter(
        "requests_total", "Requests.", {"registry": 2, "outcome": ("ok", "error")}
    )
    for name, outcome in (("a", "ok"), ("b", "ok"), ("c", "ok"), ("d", "odd"), ("a", "odd"), ("a", "ok")):
        family.child(name, outcome).inc()

    def count(name, outcome):
        labels = {"registry": name, "outcome": outcome}
        return registry.get_sample_value("p2pmirror_upstream_requests_total", labels)

    assert count("a", "ok") == 2
    assert count("b", "ok") == count("other", "ok") == count("other", "other") == count("a", "other") == 1
    assert count("c", "ok") is None
    with pytest.raises(ValueError, match="1 values for 2 labels"):
        family.child("a")


def test_children_are_made_once():
    """The same labels give the same child, which is what makes counting cheap."""
    family = Room(CollectorRegistry(), "front").gauge("queued_requests", "Queued.", {"kind": ("a",)})
    assert family.child("a") is family.child("a")
    assert family.child("x") is family.child("y")


def test_a_tally_is_a_counter():
    """What is counted in a tally is told as any counter is, classes by their names; its name is taken only once."""
    registry = CollectorRegistry(auto_describe=True)
    tally = Tally("p2pmirror_routing_things", "Things.", ["kind", "way"], registry=registry)
    for _ in range(3):
        tally.counts[KeyError, "in"] += 1
    assert registry.get_sample_value("p2pmirror_routing_things_total", {"kind": "keyerror", "way": "in"}) == 3
    assert metrics.lint(registry) == []
    with pytest.raises(ValueError, match="p2pmirror_routing_things"):
        Tally("p2pmirror_routing_things", "Things.", ["kind"], registry=registry)


def test_two_nodes_in_one_process():
    """Rooms of two nodes register the same names, each in its own registry."""
    for _ in range(2):
        Room(CollectorRegistry(), "front").counter("requests_total", "Requests.").child().inc()


def test_a_new_registry_says_what_runs():
    """Build info, process and garbage collector are there, and no `_created` series."""
    registry = metrics.new_registry("1.2.3")
    Room(registry, "front").counter("requests_total", "Requests.").child().inc()
    text = generate_latest(registry).decode()
    assert 'p2pmirror_build_info{python="3.' in text
    assert 'version="1.2.3"} 1.0' in text
    assert "process_resident_memory_bytes" in text
    assert "python_gc_collections_total" in text
    assert "p2pmirror_front_requests_created" not in text
