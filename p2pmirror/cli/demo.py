"""`p2pmirror demo`: a cluster on this machine, one of whose nodes dies while the others pull from it."""

import json
import sys
from typing import Final

import click
import trio

from p2pmirror import demo
from p2pmirror.cli.progress import Progress
from p2pmirror.cli.text import size, table
from p2pmirror.config.quantities import parse_size
from p2pmirror.demo.report import Kept

_EXAMPLE: Final = """\b
Example:
  p2pmirror demo
  p2pmirror demo --mib 64 --rate 10Mi --keep
"""
_DEFAULTS: Final = demo.Options()
MIB_MAX: Final = 16 * 1024  # 16 GiB on each of five nodes


def _rate(context: click.Context, parameter: click.Parameter, text: str) -> str:
    """Check a rate; the agents read the same text."""
    del context, parameter
    try:
        if parse_size(text) > 0:
            return text
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    raise click.BadParameter("with no limit the pulls would be over before node 1 could die")


@click.command(epilog=_EXAMPLE)
@click.option("--keep", is_flag=True, help="Leave the agents that live running, and say how to end them.")
@click.option("--json", "as_json", is_flag=True, help="Print the JSON object alone; progress goes to stderr.")
@click.option(
    "--mib",
    type=click.IntRange(1, MIB_MAX),
    default=_DEFAULTS.mib,
    show_default=True,
    help="Size of the image, in MiB.",
)
@click.option(
    "--rate", callback=_rate, default=_DEFAULTS.rate, show_default=True, help="What each agent sends a second at most."
)
def command(*, keep: bool, as_json: bool, mib: int, rate: str) -> None:
    """Run a cluster on this machine: five agents, one of which dies.

    An image is pulled from peers on four nodes, verified byte for byte, while the node that had it first is killed. The
    last line is a JSON object. Exit code 0: everything came and was verified.
    """
    progress = Progress(sys.stderr if as_json else sys.stdout)
    try:
        report = trio.run(demo.run, demo.Options(mib=mib, rate=rate, keep=keep), progress)
    except demo.DemoFailed as error:
        progress.finish()
        raise click.ClickException(str(error)) from None
    progress.finish()
    if not as_json:
        click.echo("\n".join(["", *describe(report)]))
    click.echo(json.dumps(report.summary()))


def describe(report: demo.Report) -> list[str]:
    """Return the lines that people read: who pulled how long, and from whom."""
    sources = sorted({number for node in report.nodes for number in node.from_node})
    head = ("NODE", "ADDRESS", "TIME", *(f"FROM NODE {number}" for number in sources), "RESUMED")
    rows = [
        (
            node.number,
            node.host,
            f"{node.seconds:.1f} s",
            *(size(node.from_node[number]) if number in node.from_node else "-" for number in sources),
            node.resumes,
        )
        for node in report.nodes
    ]
    pulled = sum(sum(node.from_node.values()) for node in report.nodes)
    came = f"{size(pulled)} came from peers, every byte verified by sha256"
    responses = "1 response" if report.resumed == 1 else f"{report.resumed} responses"
    went_on = f"{responses} went on from another node after node 1 was killed"
    cold = report.cold
    fetched = f"{cold.manifests_fetched} of the {cold.manifests_max} manifests that it gives in six hours"
    copies = (
        f"{cold.pulls} pulls of an image of {size(cold.image_bytes)} took {cold.copies:.2f} copies from its registry"
    )
    requests = cold.upstream_requests
    kinds = ", ".join(f"{count} for {kind}s" for kind, count in requests.items())
    lines = [
        *table(head, rows),
        "",
        f"{came}; {went_on}",
        f"{copies}, in {sum(requests.values())} requests ({kinds}), and {fetched}",
    ]
    return lines + (_how_to_end(report.kept) if report.kept is not None else [])


def _how_to_end(kept: Kept) -> list[str]:
    rows = [(place.number, place.registry, f"http://{place.observability}/") for place in kept.places]
    return [
        "",
        "still running (node 1 is dead):",
        *table(("NODE", "REGISTRY API", "STATUS PAGE"), rows),
        "",
        f"ask one:   p2pmirror status --agent http://{kept.places[0].observability}",
        f"end them:  kill {' '.join(str(pid) for pid in kept.pids)}; rm -rf {kept.directory}",
    ]
