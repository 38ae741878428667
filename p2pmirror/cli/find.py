"""`p2pmirror find`: who in the cluster has an image or a blob."""

import json
import sys
from typing import Any, Final

import click

from p2pmirror.cli.asking import agent_option, ask, json_option, plain
from p2pmirror.cli.text import counted, duration, table
from p2pmirror.oci import Digest, Invalid, Reference

_EXAMPLE: Final = """\b
Example:
  p2pmirror find docker.io/library/nginx:1.27
  p2pmirror find docker.io/library/nginx:1.27 --trace
  p2pmirror find sha256:0d17b565c37bcbd895e9d92315a05c1c3c9a29f762b011a10c54a66cd53c9b31 --json
"""


@click.command(epilog=_EXAMPLE)
@click.argument("what", metavar="REF|DIGEST")
@click.option("--trace", is_flag=True, help="Look it up once more, and show the way: who was asked, who answered what.")
@agent_option
@json_option
def command(what: str, agent: str, *, trace: bool, as_json: bool) -> None:
    """Ask an agent who has an image or a blob, and how long the answer took.

    REF is an image by tag (latest when it has none) or by digest. Exit code 1: nobody has it.
    """
    answer = ask(agent, "/api/v1/find", {**question(what), **({"trace": "1"} if trace else {})})
    way = ["", *describe_way(answer.get("trace"))] if trace else []
    click.echo(json.dumps(answer) if as_json else "\n".join(describe(answer) + way))
    if not answer["providers"] and not answer["held"]:
        sys.exit(1)


def question(what: str) -> dict[str, str]:
    """Return the query that asks for what a person named; `click.BadParameter` when it names nothing.

    A reference goes as it was written: which registry an image without one is from, the agent knows.
    """
    try:
        if what.startswith(("sha256:", "sha512:")):
            return {"digest": str(Digest.parse(what))}
        Reference.parse(what)
    except Invalid as error:
        raise click.BadParameter(str(error), param_hint="REF|DIGEST") from None
    return {"ref": what}


def describe(answer: dict[str, Any]) -> list[str]:
    """Return the lines that people read."""
    providers = answer["providers"]
    lines = [
        plain(answer["subject"]),
        f"{_who(len(providers), held=answer['held'])}; the answer took {duration(answer['seconds'])}",
    ]
    if not providers:
        return lines
    claims = any(each.get("claim") for each in providers)
    head = ("NODE", "ADDRESS", "ZONE", "HAS", *(("TAG STANDS FOR",) if claims else ()))
    return lines + table(head, [_row(each, claims=claims) for each in providers])


def describe_way(trace: dict[str, Any] | None) -> list[str]:
    """Return the lines that people read of a look-up's way; None is one that did not end in time."""
    if trace is None:
        return ["the agent did not tell a way: the look-up took too long, or the agent is an older one"]
    steps, holders = trace["steps"], trace["holders"]
    others = [step for step in steps if step["hop"] > 0]
    answered = sum(step["answered_s"] is not None for step in others)
    said = (
        f"the way of a look-up that asks every holder: {counted(len(others), 'other node')} asked, "
        f"{answered} answered, {counted(len(holders), 'holder')}, {duration(trace['seconds'])}"
    )
    if not steps:
        return [said]
    head = ("HOP", "NODE", "ADDRESS", "ASKED AT", "ROUND TRIP", "ANSWER")
    return [said, *table(head, [_step(step, frozenset(holders)) for step in steps])]


def _step(step: dict[str, Any], holders: frozenset[str]) -> tuple[object, ...]:
    row = (step["hop"], step["node_id"][:12], step["address"], duration(step["asked_s"]))
    if step["answered_s"] is None:
        return (*row, "-", "silent")
    holder = "; a holder" if step["node_id"] in holders else ""
    answer = f"{counted(step['records'], 'record')}, {counted(step['closer'], 'closer node')}{holder}"
    took = duration(step["answered_s"] - step["asked_s"]) if step["hop"] else "this node"
    return (*row, took, answer)


def _who(others: int, *, held: bool) -> str:
    """Say who has it, seen from the agent that was asked."""
    if not others:
        return "only the agent that was asked has it" if held else "nobody has it"
    nodes = f"{counted(others, 'other node')} {'has' if others == 1 else 'have'} it"
    return f"{nodes}, and so does the agent that was asked" if held else f"{nodes}, the agent that was asked does not"


def _row(provider: dict[str, Any], *, claims: bool) -> tuple[str, ...]:
    has = "all" if provider["complete"] else "a part"
    row = (provider["node_id"][:12], provider["address"], provider["zone"] or "-", has)
    claim = provider.get("claim")
    return (*row, claim["digest"] if claim else "-") if claims else row
