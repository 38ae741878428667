"""The few things that are done to files of a host: read with bounds, written whole or not at all.

Laws:
- Nothing is written through a link: what takes a file's name takes the link's place, and what it led to stays.
- Only regular files are opened: a pipe would hold the caller for ever.
- A reader sees the old file or the new one, also after a crash: written beside it, put on the disk, renamed.

Runs in commands alone, never in an agent, so it waits for the disk as commands do.
"""

import contextlib
import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from p2pmirror.errors import BadRequest

BYTES_MAX: Final = 1 << 20  # a hosts.toml has some hundred bytes, containerd's own configuration some 20 KiB
PREFIX: Final = ".p2pmirror-new-"  # of files that are being written
NEW_MODE: Final = 0o644
NEW_DIRECTORY_MODE: Final = 0o755
SECRET_MODE: Final = 0o600  # of what has headers in it: they may be logins


class Unreadable(BadRequest):
    """A file that is not read or written; the message says what it is."""


def text_of(path: Path) -> str | None:
    """Return the text of a file, through links; None where there is none. Raises `Unreadable`."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise Unreadable("it is no regular file")
        if found.st_size > BYTES_MAX:
            raise Unreadable(f"it has more than {BYTES_MAX} bytes")
        return path.read_bytes().decode()
    except FileNotFoundError:
        if path.is_symlink():
            raise Unreadable("it is a link that leads nowhere") from None
        return None
    except UnicodeDecodeError:
        raise Unreadable("it is no UTF-8") from None
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from None


def write(path: Path, text: str, like: Path | None, *, mode_max: int = 0o7777) -> None:
    """Give a file new content, with mode, owner and attributes of `like` where there is such a file. Raises OSError."""
    with _new(path) as new:
        new.write_bytes(text.encode())
        if like is not None and like.is_file():
            copy_facts(like, new, times=False)
        else:
            new.chmod(NEW_MODE)
        new.chmod(stat.S_IMODE(new.stat().st_mode) & mode_max)
        _to_disk(new)
        new.replace(path)
    _to_disk(path.parent)


def copy(source: Path, target: Path) -> None:
    """Make `target` what `source` is: content, mode, owner, times, attributes. Raises OSError."""
    with _new(target) as new:
        shutil.copyfile(source, new)
        copy_facts(source, new, times=True)
        _to_disk(new)
        new.replace(target)
    _to_disk(target.parent)


def link(path: Path, leads_to: str) -> None:
    """Put a link in the place of a file. Raises OSError."""
    with _new(path) as new:
        new.unlink()
        new.symlink_to(leads_to)
        new.replace(path)
    _to_disk(path.parent)


def copy_facts(source: Path, target: Path, *, times: bool) -> None:
    """Copy mode, owner and extended attributes of a file; its times where they are wanted too."""
    facts = source.stat()
    with contextlib.suppress(PermissionError):  # whoever may write a directory need not be its files' owner
        os.chown(target, facts.st_uid, facts.st_gid)
    now = target.stat()
    shutil.copystat(source, target)
    if not times:
        os.utime(target, ns=(now.st_atime_ns, now.st_mtime_ns))


def remove(path: Path) -> None:
    """Remove a file or a link; what is absent is no error. Raises OSError."""
    path.unlink(missing_ok=True)
    _to_disk(path.parent)


def missing_directories(path: Path) -> list[Path]:
    """Return what of a directory and its parents is not there, the outermost first."""
    missing: list[Path] = []
    while not path.exists():
        missing.insert(0, path)
        path = path.parent
    return missing


def make_directories(path: Path) -> list[Path]:
    """Make a directory and its parents; return those that were not there, the outermost first. Raises OSError."""
    missing = missing_directories(path)
    for each in missing:
        each.mkdir()
        each.chmod(NEW_DIRECTORY_MODE)  # whatever the umask: others than root may read images' hosts, too
    return missing


def sweep(directory: Path) -> None:
    """Remove what a killed command left half written in a directory."""
    for each in directory.glob(f"{PREFIX}*"):
        each.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a directory against another command of ours; nothing stays behind, whatever ends it. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _new(path: Path) -> Iterator[Path]:
    new = path.with_name(f"{PREFIX}{os.getpid()}-{path.name}")
    os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, SECRET_MODE))
    try:
        yield new
    finally:
        new.unlink(missing_ok=True)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
