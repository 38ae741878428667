"""The setting `registries`: names in flags and in the environment, tables in the file.

Law: each complaint names the table and the key, and shows no proxy's password.
"""

from collections.abc import Callable
from typing import Any, Final

from p2pmirror.config.quantities import parse_duration, parse_switch
from p2pmirror.oci import Invalid, canonical_registry, check_registry
from p2pmirror.telemetry.logs import REDACTED
from p2pmirror.upstream.credentials.setting import read_credentials
from p2pmirror.upstream.options import (
    RegistryOptions,
    default_url,
    private_literal,
    read_mode,
    read_proxy,
    read_url,
)
from p2pmirror.upstream.registries import Registries

NAMES: Final = "a registry's name such as docker.io or ghcr.io"

_KEYS: Final[dict[str, str]] = {  # of a table, and what each becomes
    "name": "name",
    "url": "url",
    "mode": "mode",
    "private_addresses": "private_addresses",
    "tag_ttl": "tag_ttl_s",
    "credentials": "credentials",
    "ca_file": "ca_file",
    "proxy": "proxy",
}


def read_name(text: str) -> str:
    """Return a registry's canonical name. ValueError."""
    try:
        return canonical_registry(check_registry(text))
    except Invalid as error:
        raise ValueError(f"{NAMES} ({error})") from None


def read_registries(entries: list[object], read_path: Callable[[str], object]) -> Registries:
    """Return the table of registries, built-in ones included. An entry is a name or a table. ValueError."""
    return Registries(_registry(entry, read_path) for entry in entries)


def without_secrets(given: object) -> object:
    """Return a setting's value as it may be shown."""
    if isinstance(given, dict):
        return {key: REDACTED if _is_secret(key, value) else value for key, value in given.items()}
    return [without_secrets(each) for each in given] if isinstance(given, list) else given


def _is_secret(key: str, value: object) -> bool:
    """Say whether people write passwords there, rightly or not."""
    return key in {"proxy", "credentials"} or (key == "url" and "@" in str(value))


def _registry(entry: object, read_path: Callable[[str], object]) -> RegistryOptions:
    table = {"name": entry} if isinstance(entry, str) else entry
    if not isinstance(table, dict) or not isinstance(table.get("name"), str):
        raise ValueError('names, or tables with a name: [[registries]] name = "ghcr.io"')
    name = read_name(table["name"])
    readers: dict[str, Callable[[str], Any]] = {
        "name": read_name,
        "url": read_url,
        "mode": read_mode,
        "private_addresses": parse_switch,
        "tag_ttl": parse_duration,
        "credentials": read_credentials,
        "ca_file": read_path,
        "proxy": read_proxy,
    }
    values: dict[str, Any] = {"url": default_url(name)}
    for key, given in table.items():
        if key not in _KEYS:
            raise ValueError(f"for {name} the keys {', '.join(_KEYS)}, not {key!r}")
        values[_KEYS[key]] = _value(name, key, given, readers[key])
    options = RegistryOptions(**values)
    _check_address(options)
    return options


def _value(name: str, key: str, given: object, read: Callable[[str], Any]) -> Any:
    try:
        return read(_text(given))
    except ValueError as error:
        shown = "" if _is_secret(key, given) else f", not {str(given)[:100]!r}"
        raise ValueError(f"for {name} as {key} {error}{shown}") from None


def _text(given: object) -> str:
    if isinstance(given, bool):
        return "true" if given else "false"
    if not isinstance(given, str):
        raise ValueError("a text, or true or false")
    return given


def _check_address(options: RegistryOptions) -> None:
    """Refuse a setting that could never work: what it names is never dialled."""
    address = private_literal(options.url)
    if address is not None and not options.private_addresses:
        raise ValueError(f"for {options.name} a public address as url, or private_addresses = true, not {address}")
