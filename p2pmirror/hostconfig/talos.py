"""Patches for Talos' machine configuration: containerd's hosts there are Talos' own files, on a read-only system.

Laws:
- Without a version the oldest form is printed, which every release reads. A field and the document that replaced it
  must not both be in one configuration, so each is printed in one form only.
- What Talos calls `*` is `_default`; it always asks for pull and resolve, and falls back to the registry by itself.
- It throws layers away that are unpacked: that is turned off, or nodes could give one another only what is in caches.
"""

import json
from dataclasses import dataclass
from typing import Final

from p2pmirror.hostconfig.daemon import CRI_3
from p2pmirror.hostconfig.names import DEFAULT

MIRROR_DOCUMENTS: Final = (1, 12)  # from this release on: RegistryMirrorConfig
CRI_DOCUMENTS: Final = (1, 14)  # from this one on: CRICustomizationConfig, which needs no reboot

_PART: Final = "/etc/cri/conf.d/20-customization.part"  # the name that Talos merges last
_FRAGMENT: Final = (f'[plugins."{CRI_3}"]', "  discard_unpacked_layers = false")


@dataclass(frozen=True, slots=True)
class Machine:
    """What to patch. `version`: of Talos; `namespace`: to be made and labelled by control planes, empty for none."""

    registries: tuple[str, ...]
    addresses: tuple[str, ...]
    version: tuple[int, int] = (1, 0)
    namespace: str = ""
    fallback: bool = True


def patch(machine: Machine) -> str:
    """Return the patch: one YAML document for fields, then one for each document of Talos' own."""
    documents = [document for document in (_fields(machine), *_documents(machine)) if document]
    return "\n".join([*_head(machine), "\n---\n".join("\n".join(lines) for lines in documents), ""])


def read_version(text: str) -> tuple[int, int]:
    """Read a release as in `1.13` or `v1.13.2`. ValueError."""
    parts = text.removeprefix("v").split(".")
    if not 2 <= len(parts) <= 3 or not all(part.isascii() and part.isdigit() and len(part) < 4 for part in parts):
        raise ValueError("a release of Talos such as 1.13")
    return int(parts[0]), int(parts[1])


def _head(machine: Machine) -> list[str]:
    lines = ["# talosctl patch machineconfig --nodes NODE,... --patch @THIS_FILE"]
    if machine.version < CRI_DOCUMENTS:
        lines.append(f"# Needs a reboot of each node. Where {_PART} is in your configuration already, put")
        lines.append("# discard_unpacked_layers into that one instead.")
    if DEFAULT in machine.registries:
        lines.append('# "*" does not cover registries that have mirrors of their own: name these with --registry too.')
    if machine.namespace:
        lines.append("# inlineManifests are for control planes; leave them out of the patch for workers.")
    else:
        lines.append("# Talos enforces Pod Security; the agents use the host's network. Once, with their namespace:")
        lines.append("#   kubectl label namespace NAMESPACE pod-security.kubernetes.io/enforce=privileged")
    return lines


def _fields(machine: Machine) -> list[str]:
    lines: list[str] = []
    if machine.version < MIRROR_DOCUMENTS:
        lines += ["  registries:", "    mirrors:"]
        for registry in machine.registries:
            lines += [f"      {_name(registry)}:", "        endpoints:"]
            lines += [f"          - {_text(address)}" for address in machine.addresses]
            lines += ["        skipFallback: true"] * (not machine.fallback)
    if machine.version < CRI_DOCUMENTS:
        lines += [
            "  files:",
            f"    - path: {_PART}",
            "      op: create",
            "      permissions: 0o644",
            "      content: |",
        ]
        lines += [f"        {line}" for line in _FRAGMENT]
    lines = ["machine:", *lines] if lines else []
    return [*lines, *_cluster(machine.namespace)]


def _cluster(namespace: str) -> list[str]:
    if not namespace:
        return []
    manifest = ["apiVersion: v1", "kind: Namespace", "metadata:", f"  name: {_text(namespace)}", "  labels:"]
    manifest.append("    pod-security.kubernetes.io/enforce: privileged")
    lines = ["cluster:", "  inlineManifests:", f"    - name: {_text(f'{namespace}-namespace')}", "      contents: |"]
    return [*lines, *(f"        {line}" for line in manifest)]


def _documents(machine: Machine) -> list[list[str]]:
    documents: list[list[str]] = []
    if machine.version >= MIRROR_DOCUMENTS:
        documents += [_mirror(registry, machine) for registry in machine.registries]
    if machine.version >= CRI_DOCUMENTS:
        lines = ["apiVersion: v1alpha1", "kind: CRICustomizationConfig", "name: p2pmirror", "content: |"]
        documents.append([*lines, *(f"  {line}" for line in _FRAGMENT)])
    return documents


def _mirror(registry: str, machine: Machine) -> list[str]:
    lines = ["apiVersion: v1alpha1", "kind: RegistryMirrorConfig", f"name: {_name(registry)}", "endpoints:"]
    lines += [f"  - url: {_text(address)}" for address in machine.addresses]
    return [*lines, *(["skipFallback: true"] * (not machine.fallback))]


def _name(registry: str) -> str:
    return _text("*" if registry == DEFAULT else registry)


def _text(value: str) -> str:
    """Return a text in quotes: what JSON writes, YAML reads."""
    return json.dumps(value)
