"""The status page: one document without anything from elsewhere, written here and kept fresh by its own script.

Laws: every text that came from outside is escaped here and set as text, never as markup, by the script; the policy
allows this very script and style, by their hashes, and requests to this agent, nothing else.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal
from functools import partial
from html import escape
from importlib.resources import files
from typing import Any, Final

_ROOM: Final = files(__package__)
STYLE: Final = (_ROOM / "page.css").read_text()
SCRIPT: Final = (_ROOM / "page.js").read_text()


def _source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY: Final = (
    f"default-src 'none'; script-src {_source(SCRIPT)}; style-src {_source(STYLE)}; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")
_TONES: Final = {
    **dict.fromkeys(("alive", "ok", "reachable"), "good"),
    **dict.fromkeys(("suspect", "resting"), "warn"),
    **dict.fromkeys(("gone", "cut", "error", "unreachable"), "bad"),
}
ROWS_MAX: Final = 1_000  # of a list: what a browser draws again each two seconds without a stutter
MEMBERS_MAX: Final = 100  # of a cluster's members; above them stands how many there are of each state and zone
ZONES_MAX: Final = 5  # named there, the largest ones
_STATES: Final = ("alive", "suspect", "gone")
REQUESTS_MAX: Final = 50  # what a person looks through; the API has more

_Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _List:
    """A table: its title, what it says when it has no rows, and of each column the name, the heading and the form."""

    title: str
    empty: str
    columns: Sequence[tuple[str, str, str]]  # form: "" is text as it is, "lines" in several lines, "wrap" broken
    rows_max: int = ROWS_MAX


_LISTS: Final[Mapping[str, _List]] = {
    "members": _List(
        "Members",
        "Nobody is known.",
        (
            ("node_id", "node", "id"),
            ("address", "address", ""),
            ("state", "state", "state"),
            ("zone", "zone", "wrap"),
            ("heard", "heard", "ago"),
        ),
        MEMBERS_MAX,
    ),
    "sources": _List(
        "Where answers came from",
        "Nobody has asked for an image yet.",
        (
            ("source", "source", ""),
            ("share", "share", "bar"),
            ("requests", "requests", ""),
            ("bytes", "sent", "bytes"),
            ("meaning", "that is", "wrap"),
        ),
    ),
    "registries": _List(
        "Registries",
        "No registry is known.",
        (
            ("name", "registry", "wrap"),
            ("mode", "mode", ""),
            ("standing", "state", "state"),
            ("rests", "not asked for", "seconds"),
            ("quota_left", "pulls left", ""),
        ),
    ),
    "transfers": _List(
        "Running transfers",
        "Nothing is coming from a registry or a peer right now.",
        (
            ("name", "image", "wrap"),
            ("digest", "digest", "short"),
            ("done", "done", "bar"),
            ("sent_bytes", "sent", "bytes"),
            ("size", "of", "bytes"),
            ("rate", "rate", "rate"),
            ("from", "from", "lines"),
            ("followers", "spread to", ""),
            ("resumes", "resumes", ""),
            ("seconds", "for", "seconds"),
        ),
    ),
    "requests": _List(
        "Last requests",
        "Nobody has asked for anything yet.",
        (
            ("ago_s", "when", "ago"),
            ("method", "method", ""),
            ("image", "image or path", "wrap"),
            ("reference", "reference", "short"),
            ("answer", "answer", "state"),
            ("from", "from", ""),
            ("bytes", "bytes", "bytes"),
            ("seconds", "took", "seconds"),
        ),
        REQUESTS_MAX,
    ),
}


def render(status: _Row, recent: Mapping[str, Sequence[_Row]], about: Mapping[str, str], up_s: float) -> str:
    """Return the page as of now: `status` and `recent` as the API says them, and what of this node does not change."""
    rows = _derived(status, recent)
    facts = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in about.items())
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>p2pmirror</title><link rel="icon" href="data:,"><style>{STYLE}</style></head><body>'
        f'<header><h1>p2pmirror</h1><p id="state" role="status" class="{"good" if status["ready"] else "bad"}">'
        f'{escape(readiness(status))}</p></header><p id="stale" role="alert" hidden></p><main>'
        f'<dl>{facts}<div><dt>up</dt><dd data-up="{up_s:.0f}">{shown(up_s, "long")}</dd></div></dl>'
        f'<section class="numbers">{_numbers(status)}</section>{_trouble(status)}'
        '<section><form id="find"><label for="subject">Who has</label>'
        '<input id="subject" name="subject" autocomplete="off" placeholder="nginx:1.27 or sha256:…" required>'
        '<button>Find</button></form><div id="found" role="status" hidden></div></section>'
        f'<div class="pair">{_table("members", rows, summary(status["members"]))}{_table("sources", rows)}</div>'
        f"{_table('transfers', rows)}{_table('registries', rows)}{_table('requests', rows)}"
        f"</main><script>{SCRIPT}</script></body></html>\n"
    )


def readiness(status: _Row) -> str:
    """Return in a few words whether the agent is ready, and why not."""
    return "ready" if status["ready"] else f"not ready: {'; '.join(status['reasons'])}"


def standing(registry: _Row) -> str:
    """Return in one word how this node stands with a registry; `page.js` does the same in the browser."""
    if not registry["asked"]:
        return "" if registry["mode"] == "peers" else "unasked"
    if not registry["reachable"]:
        return "unreachable"
    return "resting" if registry["rests_s"] else "reachable"


def trouble(cache: _Row) -> str:
    """Return what is wrong with the cache, in a sentence; `page.js` does the same in the browser."""
    return f"The cache keeps nothing new: {cache['trouble']}" if cache["trouble"] else ""


def summary(members: Sequence[_Row]) -> str:
    """Return how many members there are of each state and zone; `page.js` does the same in the browser."""
    states, zones = Counter(each["state"] for each in members), Counter(each["zone"] or "-" for each in members)
    text = ", ".join(f"{states[state]} {state}" for state in _STATES if states[state])
    if len(zones) > 1:
        largest = sorted(zones.items(), key=lambda zone: (-zone[1], zone[0]))
        text += f"; by zone: {', '.join(f'{zone} {count}' for zone, count in largest[:ZONES_MAX])}"
        text += f" and {len(zones) - ZONES_MAX} more zones" if len(zones) > ZONES_MAX else ""
    return text + (f"; the first {MEMBERS_MAX} are listed" if len(members) > MEMBERS_MAX else "")


def shown(value: object, form: str) -> str:
    """Return a value as people read it; `page.js` does the same in the browser."""
    if value is None or value == "":
        return "-"
    if isinstance(value, int | float) and form in _FORMS:
        return _FORMS[form](value)
    text = str(value)
    if form == "id":
        return text[:12]
    return f"{text[:19]}…" if form == "short" and len(text) > 24 else text


def _bytes(value: float) -> str:
    size, unit = float(value), 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{_fixed(size, 1)} {_UNITS[unit]}" if unit else f"{int(size)} {_UNITS[0]}"


def _fixed(value: float, digits: int) -> str:
    """Return a number as `toFixed` of the script writes it: what is half-way is rounded up, 44.25 to 44.3."""
    return f"{Decimal(value).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_UP)}"


def _duration(value: float, *, whole: bool) -> str:
    if value < 1 and not whole:
        return f"{_fixed(value * 1000, 1)} ms"
    if value < 120:
        return f"{_fixed(value, 0 if whole else 1)} s"
    if value < 7200:
        return f"{int(value / 60)} min"
    return f"{int(value / 3600)} h" if value < 172_800 else f"{int(value / 86_400)} days"


# shares are cut, not rounded: 100 % is all of it
_FORMS: Final[Mapping[str, Callable[[float], str]]] = {
    "bytes": _bytes,
    "rate": lambda value: f"{_bytes(value)}/s",
    "ratio": lambda value: f"{_fixed(int(value * 1000) / 10, 1)} %",
    "bar": lambda value: f"{int(value * 100)} %",
    "seconds": partial(_duration, whole=False),
    "long": partial(_duration, whole=True),
    "ago": lambda value: f"{_duration(value, whole=True)} ago",
}


def _derived(status: _Row, recent: Mapping[str, Sequence[_Row]]) -> dict[str, list[_Row]]:
    """Return the rows of each list, with the columns that follow from others."""
    own = status["node_id"]
    addresses = {each["node_id"]: each["address"] for each in status["members"]}

    def at(peers: str | None) -> str:
        return ", ".join(addresses.get(peer, peer[:12]) for peer in peers.split(",")) if peers else ""

    return {
        "members": [
            {**each, "heard": "this node" if each["node_id"] == own else each["last_seen_s"]}
            for each in status["members"]
        ],
        "sources": list(recent["sources"]),
        "transfers": [
            {
                **each,
                "done": each["sent_bytes"] / each["size"] if each["size"] else 1,
                "from": "\n".join(
                    f"{one['registry'] or at(one['peer'])} {_bytes(one['bytes'])}" for one in each["sources"]
                )
                or each["registry"]
                or at(each["peer"]),
            }
            for each in status["transfers"]
        ],
        "registries": [
            {**each, "standing": standing(each), "rests": each["rests_s"] or None} for each in status["registries"]
        ],
        "requests": [
            {
                **each,
                "image": _joined("/", each, "registry", "repository") if each.get("repository") else each.get("path"),
                "answer": _joined(" ", each, "status", "outcome"),
                "from": " ".join(part for part in (each.get("source"), at(each.get("peer"))) if part),
            }
            for each in recent["requests"]
        ],
    }


def _joined(between: str, row: _Row, *names: str) -> str:
    return between.join(str(row[name]) for name in names if row.get(name))


def _numbers(status: _Row) -> str:
    held, cache = status["held"], status["cache"]
    numbers = [
        ("hit_ratio", "of the requests for content answered from here or from a peer", status["hit_ratio"], "ratio"),
        ("held.blobs", "blobs held", held["blobs"], ""),
        ("held.tags", "tags held", held["tags"], ""),
        ("held.bytes", "held", held["bytes"], "bytes"),
        ("records", "records of who has what, kept for all nodes", status["records"], ""),
        ("saved_bytes", "sent to clients here that no registry had to send", status["saved_bytes"], "bytes"),
    ]
    if len({each["zone"] for each in status["members"]}) > 1:
        numbers.append(("cross_zone_bytes", "came from other zones", status["cross_zone_bytes"], "bytes"))
    if cache["max_bytes"]:
        numbers += [
            ("cache.bytes", "in the cache", cache["bytes"], "bytes"),
            ("cache.max_bytes", "the cache may have", cache["max_bytes"], "bytes"),
            ("cache.free_bytes", "free on its disk", cache["free_bytes"], "bytes"),
            ("cache.hits", "answers from the cache", cache["hits"], ""),
            ("cache.misses", "answers from elsewhere, or none", cache["misses"], ""),
        ]
    return "".join(
        f'<div><b data-field="{field}" data-form="{form}">{escape(shown(value, form))}</b><span>{name}</span></div>'
        for field, name, value, form in numbers
    )


def _trouble(status: _Row) -> str:
    text = trouble(status["cache"])
    return f'<p id="trouble" role="alert" class="bad"{"" if text else " hidden"}>{escape(text)}</p>'


def _table(name: str, lists: Mapping[str, Sequence[_Row]], above: str | None = None) -> str:
    table, rows = _LISTS[name], lists[name]
    heads = "".join(
        f'<th data-column="{column}" data-form="{form}">{head}</th>' for column, head, form in table.columns
    )
    body = "".join(
        f"<tr>{''.join(_cell(row.get(column), head, form) for column, head, form in table.columns)}</tr>"
        for row in rows[: table.rows_max]
    )
    summed = "" if above is None else f'<p data-summary="{name}">{escape(above)}</p>'
    empty = f'<tr class="empty"><td colspan="{len(table.columns)}">{table.empty}</td></tr>'
    return (
        f'<section><h2>{table.title} <span data-count="{name}">{len(rows)}</span></h2>{summed}<div class="wide">'
        f'<table data-list="{name}" data-rows="{table.rows_max}" data-empty="{table.empty}">'
        f"<thead><tr>{heads}</tr></thead><tbody>{body or empty}</tbody></table></div></section>"
    )


def _cell(value: object, head: str, form: str) -> str:
    text = shown(value, form)
    cut = form in {"short", "id"} and text not in {"-", str(value)}
    more = f' title="{escape(str(value))}"' if cut else ""
    if form == "state" and (tone := _TONES.get(text.rpartition(" ")[2])):
        more = f' class="{tone}"'
    bar = f'<progress value="{value}"></progress>' if form == "bar" and isinstance(value, int | float) else ""
    return f'<td data-head="{head}" data-form="{form}"{more}>{bar}{escape(text)}</td>'
