"""containerd's own configuration: whether and where it looks for hosts.toml.

Laws:
- One key is set, `config_path`, in the table of the file's own version; what is written is marked, to be taken back.
- Nothing is written that containerd would refuse to start with: beside `registry.mirrors` or `registry.configs.*.tls`
  it takes no `config_path`.
- A directory that somebody else chose is not changed: his files are in it.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import marks
from p2pmirror.hostconfig.outline import is_toml, read, statements, tables
from p2pmirror.hostconfig.writing import header, pair

CONFIG: Final = "/etc/containerd/config.toml"
CRI_2: Final = "io.containerd.grpc.v1.cri"  # in files of version 2: containerd 1.x, and 2.x for older files
CRI_3: Final = "io.containerd.cri.v1.images"  # in files of version 3, containerd 2.x


class Unsettable(BadRequest):
    """A configuration that is not changed; the message says why and what to do."""


def plugin_of(document: Mapping[str, Any]) -> str | None:
    """Return the name of the plugin that pulls in a file of this version; None: version 1, whatever it says."""
    version = document.get("version", 1)
    if not isinstance(version, int) or version < 2:
        return None
    return CRI_2 if version == 2 else CRI_3


def at(document: Mapping[str, Any], *keys: str) -> Any:
    """Return what stands at a path of tables; None where there is nothing."""
    found: Any = document
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def roots_of(config_path: object) -> list[str]:
    """Return the directories that a `config_path` names."""
    return [part for part in config_path.split(":") if part] if isinstance(config_path, str) else []


def with_config_path(text: str, config_path: str) -> str:
    """Return containerd's configuration with `config_path` set; as it is when it names all of ours already.

    `text` has nothing of ours. Raises `Broken`, `Unsettable`.
    """
    document = read(text)
    plugin = plugin_of(document) if document else CRI_2  # an empty file: containerd 2.x reads version 2 as well
    if plugin is None:
        raise Unsettable(
            'it is of version 1, or names none: write "version = 2" and its tables (containerd config default)'
        )
    registry = at(document, "plugins", plugin, "registry") or {}
    _refuse_conflicts(registry)
    if set(roots_of(config_path)) <= set(roots_of(registry.get("config_path"))):
        return text
    if registry.get("config_path"):
        theirs = registry["config_path"]
        raise Unsettable(f"containerd reads {theirs} already: run this with --config-path {theirs}")
    result = _set(text, ("plugins", plugin, "registry"), config_path, is_new=not document)
    if not is_toml(result):
        raise Unsettable(f'its registry settings are no table of their own: write [plugins."{plugin}".registry]')
    if at(read(result), "plugins", plugin, "registry", "config_path") != config_path or marks.without(result) != text:
        raise Unsettable("it cannot be changed without losing something of it")
    return result


def legacy_mirrors(registries: Sequence[str], addresses: Sequence[str], servers: Mapping[str, str | None]) -> str:
    """Return `registry.mirrors` for containerds that read no hosts.toml: the addresses, then the registry itself."""
    lines = ["# In containerd's config.toml, version 2; in one of version 3 (containerd 2.x) the plugin is called"]
    lines += [f'# "{CRI_3}". Not beside a config_path. Restart containerd afterwards.']
    for registry in registries:
        endpoints = [*addresses, *([server] if (server := servers.get(registry)) else [])]
        name = "*" if registry == "_default" else registry
        lines += ["", header(("plugins", CRI_2, "registry", "mirrors", name))]
        lines += [f"  {pair('endpoint', endpoints)}"]
        lines += ["  # containerd adds the registry itself at the end"] * (len(endpoints) == len(addresses))
    return "\n".join(lines) + "\n"


def _refuse_conflicts(registry: Mapping[str, Any]) -> None:
    if registry.get("mirrors"):
        raise Unsettable(
            "registry.mirrors is set, and with config_path beside it containerd starts without its image service: move "
            "the mirrors into hosts.toml files and remove the table first, or use --legacy-mirrors"
        )
    configs = registry.get("configs")
    if isinstance(configs, Mapping) and any(isinstance(each, Mapping) and each.get("tls") for each in configs.values()):
        raise Unsettable(
            "registry.configs has tls settings, which containerd refuses beside config_path: move them into hosts.toml "
            "files (ca, client, skip_verify) first"
        )


def _set(text: str, key: tuple[str, ...], config_path: str, *, is_new: bool) -> str:
    """Put the key into its table, or the table at the end; an empty `config_path` is set aside."""
    line = f"{pair('config_path', config_path)}\n"
    table = next((each for each in tables(text) if each.key == key), None)
    if table is None:
        version = "version = 2\n\n" if is_new else ""
        return marks.put_in(text, len(text), f"{version}{header(key)}\n  {line}")
    end = text.find("\n", table.start) + 1
    if not end:  # a header at the very end, without a line feed
        return marks.put_in(text, len(text), f"  {line}")
    empty = [part for part in statements(text, table) if part.key == ("config_path",)]
    return marks.put_in(text, end, f"  {line}", empty)
