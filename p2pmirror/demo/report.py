"""What a demo is asked for, what it shows on its way, and what it reports: values, and the seam to whoever prints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from p2pmirror.demo.place import NODES, Place

State = Literal["starting", "waiting", "has it", "pulling", "pulled", "killed"]


@dataclass(frozen=True, slots=True)
class Options:
    """What to run: layers of `mib` MiB together, agents that send at most `rate` (a size, in bytes per second)."""

    mib: int = 208
    rate: str = "28Mi"
    keep: bool = False


@dataclass(frozen=True, slots=True)
class NodeView:
    """One node as the display shows it."""

    number: int
    host: str
    state: State
    received_bytes: int = 0
    total_bytes: int = 0
    seconds: float = 0.0


class Display(Protocol):
    """Where the demo says how it goes."""

    @property
    def every_s(self) -> float:
        """How often it wants to be shown the nodes."""
        ...

    def stage(self, text: str) -> None:
        """Say what begins now."""
        ...

    def nodes(self, views: list[NodeView]) -> None:
        """Show how far the nodes are."""
        ...


@dataclass(frozen=True, slots=True)
class NodeReport:
    """How one node's pull went; `from_node` are bytes by the number of the node that sent them."""

    number: int
    host: str
    seconds: float
    from_node: dict[int, int]
    resumes: int


@dataclass(frozen=True, slots=True)
class ColdReport:
    """How the pull of an image went that no node had: what its registry was asked and gave, for `pulls` pulls."""

    image_bytes: int
    pulls: int
    upstream_bytes: int
    upstream_requests: dict[str, int]  # by what was asked for: tag, manifest, blob; one of each is the least
    manifests_fetched: int  # those that count against the registry's quota
    manifests_max: int

    @property
    def copies(self) -> float:
        """How often the registry gave the image."""
        return self.upstream_bytes / self.image_bytes


@dataclass(frozen=True, slots=True)
class Report:
    """How a demo went that went well: every pulled byte was verified by sha256."""

    image_bytes: int
    nodes: list[NodeReport]
    cold: ColdReport
    seconds: float
    kept: "Kept | None"

    @property
    def resumed(self) -> int:
        """Responses that went on from another peer."""
        return sum(node.resumes for node in self.nodes)

    def summary(self) -> dict[str, Any]:
        """Return the demo's last line."""
        return {
            "nodes": NODES,
            "image_bytes": self.image_bytes,
            "pulled_nodes": len(self.nodes),
            "from_peers_bytes": sum(sum(node.from_node.values()) for node in self.nodes),
            "resumed": self.resumed,
            "upstream_bytes": self.cold.upstream_bytes,
            "upstream_copies": round(self.cold.copies, 3),
            "upstream_requests": sum(self.cold.upstream_requests.values()),
            "upstream_requests_by_kind": self.cold.upstream_requests,
            "verified": True,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True, slots=True)
class Kept:
    """What was left running: the living nodes, their processes, and the directory of all."""

    places: list[Place]
    pids: list[int]
    directory: Path
