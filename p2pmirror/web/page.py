"""The status page: one document without anything from elsewhere, written here and kept fresh by its own script.

Laws: every text that came from outside is escaped here and set as text, never as markup, by the script; the policy
allows this very script and style, by their hashes, and requests to this agent, nothing else.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
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

# of each list of the API: column, heading, form ("" is text as it is)
_COLUMNS: Final[Mapping[str, Sequence[tuple[str, str, str]]]] = {
    "members": (
        ("node_id", "node", "short"),
        ("address", "address", ""),
        ("zone", "zone", ""),
        ("state", "state", ""),
        ("last_seen_s", "heard", "ago"),
    ),
    "transfers": (
        ("name", "image", ""),
        ("digest", "digest", "short"),
        ("sent_bytes", "sent", "bytes"),
        ("size", "of", "bytes"),
        ("peer", "from", "short"),
        ("resumes", "resumes", ""),
        ("seconds", "for", "seconds"),
    ),
    "requests": (
        ("ago_s", "when", "ago"),
        ("method", "method", ""),
        ("registry", "registry", ""),
        ("repository", "repository", ""),
        ("reference", "reference", "short"),
        ("status", "status", ""),
        ("outcome", "outcome", ""),
        ("source", "source", ""),
        ("bytes", "bytes", "bytes"),
        ("seconds", "took", "seconds"),
    ),
}


def render(status: Mapping[str, Any], requests: Sequence[Mapping[str, Any]], about: Mapping[str, str]) -> str:
    """Return the page as of now: what the API says, and `about`, what of this node does not change."""
    facts = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in about.items())
    held, cache = status["held"], status["cache"]
    numbers = "".join(
        f'<div><b data-field="{field}" data-form="{form}">{escape(shown(value, form))}</b><span>{name}</span></div>'
        for field, name, value, form in (
            ("hit_ratio", "of requests answered without an upstream", status["hit_ratio"], "ratio"),
            ("held.blobs", "blobs held", held["blobs"], ""),
            ("held.tags", "tags held", held["tags"], ""),
            ("held.bytes", "held", held["bytes"], "bytes"),
            ("cache.bytes", "in the cache", cache["bytes"], "bytes"),
        )
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>p2pmirror</title><link rel="icon" href="data:,"><style>{STYLE}</style></head><body>'
        f'<header><h1>p2pmirror</h1><p id="state" class="{"good" if status["ready"] else "bad"}">'
        f'{escape(readiness(status))}</p></header><p id="stale" role="status" hidden></p>'
        f'<dl>{facts}</dl><section class="numbers">{numbers}</section>'
        '<form id="find"><label for="subject">Who has</label>'
        '<input id="subject" name="subject" autocomplete="off" placeholder="nginx:1.27 or sha256:…" required>'
        '<button>Find</button></form><div id="found" role="status" hidden></div>'
        + _table("Members", "members", status["members"])
        + _table("Transfers", "transfers", status["transfers"])
        + _table("Last requests", "requests", requests)
        + f"<script>{SCRIPT}</script></body></html>\n"
    )


def readiness(status: Mapping[str, Any]) -> str:
    """Return in a few words whether the agent is ready, and why not."""
    return "ready" if status["ready"] else f"not ready: {'; '.join(status['reasons'])}"


def shown(value: object, form: str) -> str:
    """Return a value as people read it; `page.js` does the same in the browser."""
    if value is None:
        return "-"
    if isinstance(value, int | float) and form in {"bytes", "ratio", "seconds", "ago"}:
        return _number(value, form)
    text = str(value)
    return f"{text[:19]}…" if form == "short" and len(text) > 24 else text


def _number(value: float, form: str) -> str:
    if form == "ratio":
        return f"{value * 100:.1f} %"
    if form == "bytes":
        size, unit = float(value), 0
        while size >= 1024 and unit < len(_UNITS) - 1:
            size, unit = size / 1024, unit + 1
        return f"{size:.1f} {_UNITS[unit]}" if unit else f"{int(size)} {_UNITS[0]}"
    text = f"{value * 1000:.1f} ms" if value < 1 else f"{value:.1f} s"
    return f"{value:.0f} s ago" if form == "ago" else text


def _table(title: str, name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    columns = _COLUMNS[name]
    heads = "".join(f'<th data-column="{column}" data-form="{form}">{head}</th>' for column, head, form in columns)
    body = "".join(f"<tr>{''.join(_cell(row.get(column), form) for column, _, form in columns)}</tr>" for row in rows)
    return (
        f'<section><h2>{title} <span data-count="{name}">{len(rows)}</span></h2><div class="wide">'
        f'<table data-list="{name}"><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div></section>'
    )


def _cell(value: object, form: str) -> str:
    text = shown(value, form)
    whole = "" if value is None or form != "short" else f' title="{escape(str(value))}"'
    return f"<td{whole}>{escape(text)}</td>"
