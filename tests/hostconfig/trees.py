"""Directories of a host as tests write them, and what is compared of them afterwards."""

import os
import stat
from pathlib import Path


def snapshot(root: Path) -> dict:
    """Return all that is below a directory, links not followed: kind, content, mode, owner, a file's time of change."""
    found = {}
    for path in sorted([root, *root.rglob("*")]):
        facts = path.lstat()
        is_file = stat.S_ISREG(facts.st_mode)
        content = path.read_bytes() if is_file else str(path.readlink()) if stat.S_ISLNK(facts.st_mode) else None
        when = facts.st_mtime_ns if is_file else None
        found[str(path.relative_to(root))] = (content, oct(facts.st_mode), facts.st_uid, facts.st_gid, when)
    return found


def write_tree(root: Path, texts: dict[str, str]) -> None:
    """Write files below a directory."""
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())


MIRROR = """\
# the company's own
server = "https://registry-1.docker.io"  # the real one

# behind the firewall
[host."https://mirror.corp:8443"]
  capabilities = ["pull"]
  ca = "/etc/ssl/corp.pem"
  x-unknown = { "a" = 1 }

[host."https://mirror.corp:8443".header]
  x-team = ["a", "b"]
"""


def write_odd(root: Path) -> None:
    """Write what one meets in a certs.d: good, bad and odd; files that no command may change are named odd."""
    write_tree(
        root,
        {
            "docker.io/hosts.toml": MIRROR,
            "registry.corp_5000_/hosts.toml": 'server = "https://registry.corp:5000"\r\nskip_verify = true',
            "quay.io/ca.crt": "a certificate",
            "quay.io/client.cert": "another",
            "quay.io/client.key": "its key",
            "quay.io/both.cert": "one with its key",
            "ghcr.io/hosts.toml": "",
            "broken.corp/hosts.toml": '[host."https://a"\n',
            "README": "odd",
            "_backup/docker.io/hosts.toml": "odd",
            ".git/config": "odd",
            "docker.io/notes.txt": "odd",
        },
    )
    (root / "empty.corp").mkdir()
    (root / "pipe.corp").mkdir()
    os.mkfifo(root / "pipe.corp" / "hosts.toml")
    (root / "tree.corp" / "hosts.toml").mkdir(parents=True)
    (root / "linked.corp").symlink_to("docker.io")
    (root / "far.corp").mkdir()
    (root / "README").chmod(0o640)
    (root / "docker.io" / "hosts.toml").chmod(0o600)
    (root / "far.corp" / "hosts.toml").symlink_to("../docker.io/notes.txt")
    (root / "docker.io" / "notes.txt").write_text('server = "https://far.corp"\n')
    (root / "gone.corp").symlink_to("nowhere")
    os.utime(root / "docker.io" / "hosts.toml", (1_000_000_000, 1_000_000_000))
