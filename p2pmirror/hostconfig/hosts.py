"""`hosts.toml`: whom containerd asks for the images of a registry, and in which order.

Laws:
- Ours come first, in the order in which they are wanted; everything else stays as it is, but that a table of the same
  address is set aside.
- What containerd falls back to stays: `server` where there is one, else what it takes for itself. Only
  `fallback = False` makes the last of our addresses the server, and lets a host give way that is the former one.
- Our hosts are tables with headers. containerd 2.x sees no others; 1.6 drops a file that has none.
- The words in `capabilities` are those that every containerd knows: an unknown one drops the whole file.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import marks
from p2pmirror.hostconfig.outline import Part, read, statements, tables
from p2pmirror.hostconfig.writing import header, name, pair

CAPABILITIES: Final = ("pull", "resolve")
_OF_SERVER: Final = frozenset(  # what stands before the tables and belongs to `server`
    {"server", "capabilities", "ca", "client", "skip_verify", "header", "override_path", "dial_timeout"}
)


class Unmergeable(BadRequest):
    """A file whose form leaves no place for ours; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """The hosts that are to come first. `dial_timeout` as Go writes it (containerd 2.1 reads it), empty for none."""

    addresses: tuple[str, ...]
    capabilities: tuple[str, ...] = CAPABILITIES
    dial_timeout: str = "200ms"
    headers: tuple[tuple[str, str], ...] = ()
    fallback: bool = True


@dataclass(frozen=True, slots=True)
class Certificates:
    """Certificates that lie beside a missing hosts.toml: containerd reads them only as long as it is missing."""

    authorities: tuple[str, ...] = ()
    pairs: tuple[tuple[str, str], ...] = ()


def order(text: str) -> list[str]:
    """Return the hosts in the order in which containerd asks them. Raises `Broken`."""
    return list(dict.fromkeys(each.key[1] for each in tables(text) if _is_host(each)))


def merged(text: str, wanted: Wanted, server: str | None, certificates: Certificates | None = None) -> str:
    """Return a hosts.toml with the wanted hosts first; `text` has nothing of ours, and is empty where there is none.

    `server` is what to fall back to where nothing is said. Raises `Broken`, `Unmergeable`.
    """
    parts = tables(text)
    _refuse_other_forms(text, parts)
    was = read(text).get("server")
    giving_way = {*wanted.addresses, *(() if wanted.fallback else (was, server))}
    aside = [part for each in parts if _is_host(each) and each.key[1] in giving_way for part in _own(text, each)]
    replaced = not wanted.fallback or was in wanted.addresses
    if replaced:
        aside += [part for part in statements(text, parts[0]) if part.key[0] in _OF_SERVER]
        aside += [part for each in parts if each.key[:1] == ("header",) for part in _own(text, each)]
    lines: list[str] = []
    if not wanted.fallback:  # certificates are for the registry, which nobody asks then
        lines += [pair("server", wanted.addresses[-1]), *_settings(wanted), *_header(("header",), wanted)]
    else:
        lines += [pair("server", server)] if server is not None and (replaced or not text.strip()) else []
        lines += _tls(certificates or Certificates())
    for address in wanted.addresses:
        lines += ["", header(("host", address)), *(f"  {line}" for line in _settings(wanted))]
        lines += [f"  {line}" for line in _header(("host", address, "header"), wanted)]
    block = "".join(f"{line}\n" for line in (lines if lines[0] else lines[1:]))
    result = marks.put_in(text, _place(text, parts), block, aside)
    _check(text, result, wanted, giving_way, _OF_SERVER if replaced or not text.strip() else frozenset())
    return result


def _refuse_other_forms(text: str, parts: Sequence[Part]) -> None:
    """Refuse what names its hosts otherwise than by tables: ours could not come first, or would hide the others."""
    for part in parts:
        other = part.key == ("host",) and (part.many or statements(text, part))
        if other or (not part.key and any(each.key[0] == "host" for each in statements(text, part))):
            raise Unmergeable('its hosts are not tables of their own: write each as [host."https://…"], one key a line')


def _check(text: str, result: str, wanted: Wanted, giving_way: set[str | None], changing: frozenset[str]) -> None:
    """Refuse a result that says anything else than what was there and ours first, or that cannot be taken back.

    `giving_way` are hosts, `changing` the keys besides them, of which it may say otherwise.
    """
    meant, was = read(result), read(text)
    hosts, others = meant["host"], was.get("host", {})
    kept = all(hosts[each] == others[each] for each in others if each not in giving_way)
    rest = {key for key in meant.keys() | was.keys() if meant.get(key) != was.get(key)} - changing - {"host"}
    first = order(result)[: len(wanted.addresses)] == list(wanted.addresses)
    if not kept or rest or not first or marks.without(result) != text:
        raise Unmergeable("it cannot be changed without losing something of it")


def _place(text: str, parts: Sequence[Part]) -> int:
    """Return where ours begin: before the first table and the comments that stand directly above it."""
    place = parts[0].end
    if len(parts) == 1:
        return place
    while (line := text.rfind("\n", 0, max(place - 1, 0)) + 1) < place and text[line:].startswith("#"):
        if marks.is_marked(text[line:place]) or not _is_between(text, line):
            break
        place = line
    return place


def _is_between(text: str, place: int) -> bool:
    """Tell whether a place is between statements, not within a text of several lines."""
    try:
        read(text[:place])
    except BadRequest:
        return False
    return True


def _own(text: str, table: Part) -> list[Part]:
    """Return a table's header and statements, without the comments and blank lines around them."""
    end = text.find("\n", table.start) + 1 or len(text)
    return [Part(table.start, end, table.key), *statements(text, table)]


def _is_host(table: Part) -> bool:
    return len(table.key) >= 2 and table.key[0] == "host" and not table.many


def _settings(wanted: Wanted) -> list[str]:
    lines = [pair("capabilities", list(wanted.capabilities))]
    return [*lines, pair("dial_timeout", wanted.dial_timeout)] if wanted.dial_timeout else lines


def _header(key: tuple[str, ...], wanted: Wanted) -> list[str]:
    if not wanted.headers:
        return []
    return [header(key), *(f"  {pair(name(said), text)}" for said, text in wanted.headers)]


def _tls(certificates: Certificates) -> list[str]:
    lines = [pair("ca", list(certificates.authorities))] if certificates.authorities else []
    pairs = [list(pair) for pair in certificates.pairs]
    return [*lines, pair("client", pairs)] if pairs else lines
