"""What a user should know about a host that was configured, beyond what was written.

Law: a note names what is wrong and the command that mends it; it never stops anything.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import daemon, files
from p2pmirror.hostconfig.containerd import Setup
from p2pmirror.hostconfig.names import DEFAULT
from p2pmirror.hostconfig.outline import read
from p2pmirror.hostconfig.targets import own_directories

DOCKER_ROOT: Final = Path("/etc/docker/certs.d")  # containerd 2.2 reads it too where no config_path is set


def notes_on(
    setup: Setup,
    *,
    default_root: Path,
    restart: bool,
    config: Path = Path(daemon.CONFIG),
    docker_root: Path = DOCKER_ROOT,
) -> list[str]:
    """Return what to say; what concerns the host's own containerd only where its own directory was configured."""
    notes = []
    if restart:
        notes.append("config_path counts from containerd's next start: restart it once (systemctl restart containerd)")
    if setup.roots == (default_root,):
        notes += _shadowed_notes(setup, docker_root)
    if setup.roots[0] == default_root and setup.daemon_config is None and config.exists():
        notes += _config_path_notes(setup.roots, config)
    return notes


def _shadowed_notes(setup: Setup, docker_root: Path) -> list[str]:
    """Name what our `_default` hides in Docker's directory from a containerd that reads both."""
    if DEFAULT not in setup.registries or not docker_root.is_dir():
        return []
    root = setup.roots[0]
    own = {each.name for each in root.iterdir()} if root.is_dir() else set()
    hidden = [each.name for each in own_directories([docker_root]) if each.name not in own]
    if not hidden:
        return []
    note = (
        f"{docker_root} has {', '.join(hidden)}, which containerd 2.2 and newer reads after {root} where no "
        f"config_path is set, and now stops before; use --config-path {root}:{docker_root} there"
    )
    return [note]


def _config_path_notes(roots: Sequence[Path], config: Path) -> list[str]:
    try:
        document = read(files.text_of(config) or "")
    except BadRequest:
        return []
    plugin = daemon.plugin_of(document)
    said = daemon.roots_of(daemon.at(document, "plugins", plugin, "registry", "config_path")) if plugin else []
    if set(map(str, roots)) <= set(said):
        return []
    here = "is not set" if not said else f"is {':'.join(said)}"
    return [f"config_path {here} in {config}; unless it is set elsewhere, containerd needs --daemon-config"]
