"""How many trials a node has room for, and how nodes of one kind share what is to be measured."""

from collections.abc import Iterator, Sequence

import pytest

from attnsweep.core.deployment import Ask, Deployment, Subject
from attnsweep.engine import cluster
from attnsweep.engine.engine import MachineInfo, Measured
from attnsweep.engine.on_ray import Kind, Node


@pytest.mark.parametrize(
    ("node", "asked", "count"),
    [
        ({"CPU": 8, "GPU": 2}, {"cpu": 1, "gpu": 0.75}, 2),  # and not 2.7
        ({"CPU": 8, "GPU": 2}, {"cpu": 1, "gpu": 0.1}, 8),
        ({"CPU": 64, "GPU": 2}, {"cpu": 1, "gpu": 0.1}, 20),
        ({"CPU": 64, "GPU": 4}, {"cpu": 1, "gpu": 2}, 2),
        ({"CPU": 0.3}, {"cpu": 0.1, "gpu": 0}, 3),  # 0.3 / 0.1 is 2.9999999999999996
        ({"CPU": 4}, {"cpu": 1, "gpu": 0.25}, 0),
        ({}, {"cpu": 0, "gpu": 0}, 1),
    ],
)
def test_room_in_a_node(node: dict[str, float], asked: dict[str, float], count: int) -> None:
    assert cluster.room(node, asked) == count


def asks(count: int) -> list[Ask]:
    return [Ask(Deployment(), Subject(f"{i:012x}", {})) for i in range(count)]


class Answering(Node):
    """A node that answers with a ratio, or is lost after so many answers."""

    ratio, lost_after = 1.0, 10**6
    known_to = 0.0

    def answer(self, asked: Sequence[Ask]) -> Iterator[tuple[Node, Measured]]:
        for ask in list(asked)[: self.lost_after]:
            ends = {
                f"latency_ms_{end}": self.ratio * (1 + sign * self.known_to)
                for end, sign in (("low", -1), ("high", 1))
            }
            yield self, Measured(ask, {"latency_rel": self.ratio, "host": self.node_id, **ends})


def kind_of(*nodes: Node, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """These nodes, whose answers come one node after another."""
    monkeypatch.setattr(
        Kind, "gathered", lambda self, shares: (one for node, asked in shares for one in node.answer(asked))
    )
    return Kind(MachineInfo({1: "here"}, {}, {}, cores=1), nodes, lambda reason: None)


def node(name: str, *, ratio: float = 1.0, known_to: float = 0.0, lost_after: int = 10**6) -> Answering:
    made = Answering(name, 1.0, 0.0)
    object.__setattr__(made, "ratio", ratio)
    object.__setattr__(made, "known_to", known_to)
    object.__setattr__(made, "lost_after", lost_after)
    return made


def test_what_a_lost_node_leaves_others_measure(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = kind_of(node("a"), node("b", lost_after=2), node("c"), monkeypatch=monkeypatch)
    measured = list(kind.measure(asks(12)))
    assert sorted(one.ask.subject.arch_id for one in measured if one.ask.subject) == [
        f"{i:012x}" for i in range(12)
    ]
    alone = kind_of(node("a", lost_after=1), monkeypatch=monkeypatch)
    assert len(list(alone.measure(asks(3)))) == 1, "and nobody is left: the next command measures the rest"


def test_a_node_that_disagrees_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nodes = [node("a"), node("b", ratio=1.2, known_to=0.1), node("c", ratio=1.01), node("d", ratio=0.99)]
    nodes += [node("e", ratio=0.8), node("f", ratio=1.2, known_to=0.15), node("g", ratio=0.8, known_to=0.2)]
    measured = list(kind_of(*nodes, monkeypatch=monkeypatch).measure(asks(20)))
    others = {"a", "c", "d", "f", "g"}  # what is unstable says nothing of its node
    assert len(measured) == 20 and {one.row["host"] for one in measured if one.row} == others
    assert sorted(caplog.messages) == [
        "b measures 1.200 where others measure 1.000 times the reference, so it measures no more",
        "e measures 0.800 where others measure 1.000 times the reference, so it measures no more",
    ]
