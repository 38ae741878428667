"""`registries.yaml` of k3s and RKE2, from which they write containerd's hosts at their start.

Laws:
- The file is changed as containerd's are: by marked blocks and lines set aside, so every other byte stays.
- `*` counts only for registries that are named neither under `mirrors` nor, with a login or certificates, under
  `configs`: each of these is given ours too.
- k3s adds the registry itself at the end, unless it was started with --disable-default-registry-endpoint.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import yaml

from p2pmirror.hostconfig import marks
from p2pmirror.hostconfig.hosts import Unmergeable
from p2pmirror.hostconfig.names import DEFAULT
from p2pmirror.hostconfig.outline import Part

FILE: Final = "/etc/rancher/k3s/registries.yaml"
ALL: Final = "*"

_Pair = tuple[yaml.Node, yaml.Node]  # a key and its value, with the places where they stand


@dataclass(frozen=True, slots=True)
class _Edit:
    """Lines to put in at the beginning of a line, and lines to set aside."""

    at: int
    lines: list[str]
    aside: tuple[Part, ...] = ()


def merged(text: str, registries: Sequence[str], addresses: Sequence[str]) -> str:
    """Return a registries.yaml in which the addresses come first; `text` has nothing of ours. Raises `Unmergeable`."""
    root, said = _read(text)
    wanted = _wanted(said, registries, addresses)
    result = text
    for edit in sorted(_edits(text, root, wanted, addresses), key=lambda edit: -edit.at):  # from the end: places hold
        result = marks.put_in(result, edit.at, "".join(f"{line}\n" for line in edit.lines), edit.aside)
    if marks.without(result) != text or _read(result)[1] != {**said, "mirrors": wanted}:
        raise Unmergeable("it cannot be changed without losing something of it")
    return result


def printed(registries: Sequence[str], addresses: Sequence[str]) -> str:
    """Return a file of its own, for a host that has none."""
    lines = ["# /etc/rancher/k3s/registries.yaml, or rke2; restart k3s or rke2 afterwards", "mirrors:"]
    for registry in registries:
        name = ALL if registry == DEFAULT else registry
        lines += [f"  {line}" for line in _entry(name, {"endpoint": list(addresses)})]
    return "\n".join([*lines, ""])


def _read(text: str) -> tuple[yaml.MappingNode | None, dict[str, Any]]:
    """Return the file as nodes with places, and what it says; None and nothing for an empty one."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise Unmergeable("it has aliases (*name): write out what they stand for")
        root, said = yaml.compose(text, yaml.SafeLoader), yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Unmergeable(f"no YAML: {' '.join(str(error).split())}") from None
    if root is None or said is None:
        return None, {}
    mirrors, configs = (
        (said.get(key) or {} for key in ("mirrors", "configs")) if isinstance(said, dict) else (None, None)
    )
    if (
        not isinstance(root, yaml.MappingNode)
        or root.flow_style
        or not _are_tables(mirrors)
        or not _are_tables(configs)
    ):
        raise Unmergeable("it has not the form of a registries.yaml: mirrors and configs, each a name and its settings")
    return root, said


def _are_tables(said: Any) -> bool:
    return isinstance(said, dict) and all(isinstance(each, dict | None) for each in said.values())


def _wanted(said: dict[str, Any], registries: Sequence[str], addresses: Sequence[str]) -> dict[str, Any]:
    """Return what `mirrors` is to say."""
    mirrors: dict[str, Any] = copy.deepcopy(said.get("mirrors") or {})
    names = [ALL if registry == DEFAULT else registry for registry in registries]
    if ALL in names:
        ours = {urlsplit(address).netloc for address in addresses}
        configured = [name for name, each in (said.get("configs") or {}).items() if each and name not in {ALL, *ours}]
        names = list(dict.fromkeys([*names, *mirrors, *configured]))
    for name in names:
        entry = mirrors.get(name) or {}
        endpoints = entry.get("endpoint") or []
        if not isinstance(endpoints, list):
            raise Unmergeable(f"the endpoint of {name} is no list")
        if endpoints[: len(addresses)] != list(addresses):
            mirrors[name] = {**entry, "endpoint": [*addresses, *endpoints]}
    return mirrors


def _edits(text: str, root: yaml.MappingNode | None, wanted: dict[str, Any], addresses: Sequence[str]) -> list[_Edit]:
    """Return what to change so that `mirrors` says what is wanted."""
    whole = ["mirrors:", *(f"  {line}" for name, each in wanted.items() for line in _entry(name, each))]
    if root is None:
        return [_Edit(len(text), whole)]
    mirrors = _child(root, "mirrors")
    if mirrors is None:
        return [_Edit(_line(text, root), whole)]
    value = mirrors[1]
    if not isinstance(value, yaml.MappingNode) or value.flow_style or not value.value:
        return [_instead(text, mirrors, whole)]
    pad, there = " " * value.start_mark.column, {each.value: (each, inner) for each, inner in value.value}
    new = [f"{pad}{line}" for name, each in wanted.items() if name not in there for line in _entry(name, each)]
    edits = [edit for name, pair in there.items() for edit in _entry_edits(text, pair, wanted[name], addresses)]
    return [*edits, _Edit(_line(text, value), new)] if new else edits


def _entry_edits(text: str, entry: _Pair, wanted: Any, addresses: Sequence[str]) -> list[_Edit]:
    """Return what to change in the entry of one registry."""
    key, value = entry
    if yaml.SafeLoader("").construct_object(value, deep=True) == wanted:
        return []
    if not isinstance(value, yaml.MappingNode) or value.flow_style:
        pad = " " * key.start_mark.column
        return [_instead(text, entry, [f"{pad}{_flow(key.value)}: {_flow(wanted)}"])]
    pad, endpoint = " " * value.start_mark.column, _child(value, "endpoint")
    lines = [f"{pad}endpoint:", *(f"{pad}  - {_flow(each)}" for each in wanted["endpoint"])]
    if endpoint is None:
        return [_Edit(_line(text, value), lines)]
    if not isinstance(endpoint[1], yaml.SequenceNode) or endpoint[1].flow_style:
        return [_instead(text, endpoint, lines)]
    pad = " " * endpoint[1].start_mark.column
    return [_Edit(_line(text, endpoint[1]), [f"{pad}- {_flow(address)}" for address in addresses])]


def _entry(name: str, wanted: dict[str, Any] | None) -> list[str]:
    """Return the lines of a new entry; what it says besides its endpoints in one line, as JSON, which is YAML."""
    if wanted is None or wanted.keys() != {"endpoint"}:
        return [f"{_flow(name)}: {_flow(wanted)}"]
    return [f"{_flow(name)}:", "  endpoint:", *(f"    - {_flow(each)}" for each in wanted["endpoint"])]


def _instead(text: str, pair: _Pair, lines: list[str]) -> _Edit:
    """Put lines in the place of a key and its value, nothing or in brackets, which are set aside."""
    start, end = _line(text, pair[0]), text.find("\n", pair[1].end_mark.index) + 1 or len(text)
    return _Edit(start, lines, (Part(start, end, ()),))


def _child(node: yaml.MappingNode, name: str) -> _Pair | None:
    return next((pair for pair in node.value if pair[0].value == name), None)


def _line(text: str, node: yaml.Node) -> int:
    """Return where the line begins on which a node does."""
    return text.rfind("\n", 0, node.start_mark.index) + 1


def _flow(said: Any) -> str:
    try:
        return json.dumps(said, ensure_ascii=False)
    except (TypeError, ValueError):
        raise Unmergeable("it has values that are no text, number or list: write them in quotes") from None
