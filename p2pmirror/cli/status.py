"""`p2pmirror status`: what an agent holds, whom it knows and what it is doing."""

import json
from typing import Any, Final

import click

from p2pmirror.cli.asking import agent_option, ask, json_option, plain
from p2pmirror.cli.text import counted, duration, share, short_digest, size, table

_EXAMPLE: Final = """\b
Example:
  p2pmirror status
  p2pmirror status --agent http://10.0.0.7:9090 --json
"""


@click.command(epilog=_EXAMPLE)
@agent_option
@json_option
def command(agent: str, *, as_json: bool) -> None:
    """Show what an agent holds, knows and does.

    An agent that is not ready yet says why; that is an answer, so the exit code is 0.
    """
    answer = ask(agent, "/api/v1/status")
    click.echo(json.dumps(answer) if as_json else "\n".join(describe(answer)))


def describe(status: dict[str, Any]) -> list[str]:
    """Return the lines that people read."""
    held = status["held"]
    lines = [
        f"node       {plain(status['node_id'])}, p2pmirror {plain(status['version'])}",
        f"ready      {'yes' if status['ready'] else 'no: ' + plain('; '.join(status['reasons']))}",
        f"held       {_held(held)}",
    ]
    if cache := status.get("cache"):
        lines.append(f"cache      {_cache(cache)}")
    lines.append(f"hit ratio  {_hit_ratio(status.get('hit_ratio'))}")
    return lines + _members(status["members"], status["node_id"]) + _transfers(status["transfers"], status["members"])


def _held(held: dict[str, Any]) -> str:
    if not held["blobs"]:
        return "nothing"
    return f"{counted(held['blobs'], 'blob')}, {counted(held['tags'], 'tag')}, {size(held['bytes'])}"


def _hit_ratio(ratio: float | None) -> str:
    if ratio is None:
        return "no request for an image yet"
    if not ratio:
        return "0%: no peer had what was asked for, nor did this node"
    return f"{share(ratio)} of the requests for images were answered from here or from a peer"


def _cache(cache: dict[str, Any]) -> str:
    if not cache.get("max_bytes"):
        return "none"
    return f"{size(cache['bytes'])} of {size(cache['max_bytes'])}, {size(cache['free_bytes'])} free on the disk"


def _members(members: list[dict[str, Any]], own: str) -> list[str]:
    rows = [
        (
            each["node_id"][:12],
            each["address"],
            each["zone"] or "-",
            each["state"],
            "this node" if each["node_id"] == own else f"{duration(each['last_seen_s'])} ago",
        )
        for each in members
    ]
    return ["", counted(len(rows), "member"), *table(("NODE", "ADDRESS", "ZONE", "STATE", "LAST SEEN"), rows)]


def _transfers(transfers: list[dict[str, Any]], members: list[dict[str, Any]]) -> list[str]:
    if not transfers:
        return ["", "no running transfers"]
    addresses = {each["node_id"]: each["address"] for each in members}
    rows = [
        (
            short_digest(each["digest"]),
            each["name"],
            share(each["sent_bytes"] / each["size"] if each["size"] else 1),
            f"{size(each['sent_bytes'])} of {size(each['size'])}",
            addresses.get(each["peer"]) or (each["peer"] or "-")[:12],
            each["resumes"],
            duration(each["seconds"]),
        )
        for each in transfers
    ]
    head = ("DIGEST", "NAME", "DONE", "SENT", "FROM", "RESUMES", "FOR")
    return ["", counted(len(rows), "running transfer"), *table(head, rows)]
