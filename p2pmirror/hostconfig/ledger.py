"""What was there before: kept in `_p2pmirror`, in the directory that was configured.

Laws:
- A file is kept before it is changed, and the ledger that names it is on the disk before that; so whatever moment a
  command is killed at, all can be given back.
- It is kept once, as it was: only what the user changes afterwards takes its place, never what we wrote.
- No registry's directory can have that name, so containerd never looks at it.

`ledger.json`: `{"version": 1, "owner": for whom it was done, "files": {path: {"kind": "absent" | "file" | "link",
"copy": name, "target": of a link}}, "directories": [path]}`; paths below the configured directory are relative to it.
Directories are those that we made.
"""

import contextlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Literal

from p2pmirror.errors import BadRequest
from p2pmirror.hostconfig import files, marks

NAME: Final = "_p2pmirror"
_FILE: Final = "ledger.json"
_VERSION: Final = 1
_WAY_OUT: Final = "nothing is changed; without that directory unconfigure takes out what bears our marks"


class Lost(BadRequest):
    """The ledger cannot be read; nothing is changed then."""


@dataclass(frozen=True, slots=True)
class Before:
    """How a file was: `copy` is the name of its copy; a link's copy is of what it led to."""

    kind: Literal["absent", "file", "link"]
    copy: str | None = None
    target: str | None = None


class Ledger:
    """The ledger of one configured directory, `root`. Call `save` before what it is told is done."""

    def __init__(self, root: Path) -> None:
        """Read it. Raises `Lost`."""
        self.root = root
        self.home = root / NAME
        self.owner = ""
        self._befores: dict[str, Before] = {}
        self._directories: list[str] = []
        try:
            said = json.loads((self.home / _FILE).read_bytes())
            if said["version"] != _VERSION:
                raise Lost(f"{self.home / _FILE} was written by another version of p2pmirror ({said['version']})")
            self._befores = {path: Before(**each) for path, each in said["files"].items()}
            self._directories = [str(each) for each in said["directories"]]
            self.owner = str(said.get("owner", ""))
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Lost(f"{self.home / _FILE} cannot be read ({error}): {_WAY_OUT}") from None

    @property
    def paths(self) -> list[Path]:
        """Return the files that it has something about."""
        return [self.root / each for each in self._befores]

    @property
    def directories(self) -> list[Path]:
        """Return the directories that we made, the innermost first."""
        return sorted((self.root / each for each in self._directories), key=lambda each: -len(each.parts))

    def made(self, directories: list[Path]) -> None:
        """Note directories that we make."""
        self._directories += [each for path in directories if (each := self._name(path)) not in self._directories]

    def keep(self, path: Path, text: str | None) -> None:
        """Keep a file as it is; `text` is what it has without ours, None where there is none. Raises OSError."""
        name = self._name(path)
        before = self._befores.get(name)
        if before is not None and self._text(before) == (text or ""):
            return
        present = files.text_of(path)
        if text is None or (not text and present is not None and marks.is_marked(present)):
            self._befores[name] = Before("absent")
            return
        copy = before.copy if before is not None and before.copy is not None else f"copy-{self._free_number()}"
        is_ours = present is not None and marks.is_marked(present)
        if is_ours:
            files.write(self.home / copy, text, path)
        else:
            files.copy(path, self.home / copy)
        target = str(path.readlink()) if path.is_symlink() and not is_ours else None
        self._befores[name] = Before("link" if target is not None else "file", copy, target)

    def give_back(self, path: Path) -> None:
        """Make a file what it was, keeping what its user changed since; forget it. Raises OSError, `BadRequest`."""
        before = self._befores[self._name(path)]
        present = files.text_of(path)
        if present is not None:
            text = marks.without(present)
            if text != self._text(before):
                if text != present:
                    files.write(path, text, path)
            elif before.kind == "absent":
                files.remove(path)
            elif before.kind == "link":
                files.link(path, before.target or "")
            else:
                files.copy(self.home / str(before.copy), path)
        del self._befores[self._name(path)]

    def forget(self, path: Path) -> None:
        """Keep a file no longer: nothing of ours is in it any more."""
        self._befores.pop(self._name(path), None)

    def remove_empty(self, directories: list[Path]) -> None:
        """Remove those of these directories that we made and in which nothing is."""
        for each in self.directories:
            if each in directories and not any(each.iterdir() if each.is_dir() else ()):
                each.rmdir()
                self._directories.remove(self._name(each))

    def save(self) -> None:
        """Put it on the disk. Raises OSError."""
        said = {
            "version": _VERSION,
            "owner": self.owner,
            "files": {path: asdict(before) for path, before in self._befores.items()},
            "directories": self._directories,
        }
        files.write(self.home / _FILE, json.dumps(said, indent=1), None, mode_max=files.SECRET_MODE)

    def end(self) -> None:
        """Remove it, and the directories that we made where nothing is in them. Raises OSError.

        It goes after all that it knows of and before what it is in, so that a killed command can be repeated.
        """
        within = [each for each in self.directories if self.root in each.parents]
        _remove_where_empty(within)
        shutil.rmtree(self.home)
        _remove_where_empty([each for each in self.directories if each not in within])

    def _text(self, before: Before) -> str:
        return "" if before.copy is None else files.text_of(self.home / before.copy) or ""

    def _name(self, path: Path) -> str:
        return str(path.relative_to(self.root)) if path.is_relative_to(self.root) else str(path)

    def _free_number(self) -> int:
        taken = {each.copy for each in self._befores.values()}
        return next(number for number in range(len(taken) + 1) if f"copy-{number}" not in taken)


def _remove_where_empty(directories: list[Path]) -> None:
    for each in directories:
        with contextlib.suppress(OSError):  # somebody put something into it, or took it away
            each.rmdir()


def text_without(path: Path) -> tuple[str | None, str | None]:
    """Return a file's text and what it has without ours, None where there is no file. Raises `BadRequest`."""
    present = files.text_of(path)
    return present, None if present is None else marks.without(present)
