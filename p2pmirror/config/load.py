"""Reading the settings: flags over the environment over the file over the defaults."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from p2pmirror.config.model import BadSetting, Config
from p2pmirror.config.registries import without_secrets
from p2pmirror.config.settings import SETTINGS, Setting, cache_choice, containerd_store, scratch_choice
from p2pmirror.routing.bootstrap import KubernetesSetting

FILE_BYTES_MAX = 256 * 1024  # a settings file of some hundred registries has 20 KiB
NUMBER_MAX = 2**63 - 1  # TOML's own limit, which Python's reader does not know
CONFIG_VARIABLE = "P2PMIRROR_CONFIG"

_BY_KEY = {setting.key: setting for setting in SETTINGS}


def load(environ: Mapping[str, str], flags: Mapping[str, str], file: Path | None = None) -> Config:
    """Return the settings of an agent.

    `flags` maps keys to texts for those that were given; `file` is `--config`, and `P2PMIRROR_CONFIG` when it is None.
    Raises `BadSetting` for the first one that cannot be.
    """
    texts: dict[str, object] = {setting.key: setting.default for setting in SETTINGS}
    if file is None and environ.get(CONFIG_VARIABLE):
        file = Path(environ[CONFIG_VARIABLE])
    if file is not None:
        texts |= _from_file(file)
    texts |= _from_environment(environ)
    texts |= flags
    values = {key: _value(_BY_KEY[key], text) for key, text in texts.items()}
    if isinstance(values["bootstrap"], KubernetesSetting):
        values["bootstrap"] = values["bootstrap"].within(environ)
    return _config(values, environ.get("PATH", ""))


def _from_file(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as stream:
            data = stream.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise BadSetting("config", str(file), f"a file that can be read ({error.strerror})") from None
    if len(data) > FILE_BYTES_MAX:
        raise BadSetting("config", str(file), f"a file of at most {FILE_BYTES_MAX} bytes")
    try:
        document = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:  # TOML's, UTF-8's, and a number of thousands of digits
        raise BadSetting("config", str(file), f"TOML ({error})") from None
    for key in document:
        if key not in _BY_KEY:
            raise BadSetting(key, document[key], f"a known key: {', '.join(sorted(_BY_KEY))}")
    return document


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    known = {setting.variable: setting.key for setting in SETTINGS}
    for variable in environ:
        if variable.startswith("P2PMIRROR_") and variable != CONFIG_VARIABLE and variable not in known:
            raise BadSetting(variable, environ[variable], f"one of {', '.join(sorted(known))}")
    return {key: environ[variable] for variable, key in known.items() if variable in environ}


def _value(setting: Setting, given: object) -> object:
    """Read one setting from what a file, the environment or a flag gave."""
    try:
        return setting.read(_texts(setting, given) if setting.many else _text(given))
    except ValueError as error:
        raise BadSetting(setting.key, without_secrets(given), str(error)) from None


def _text(given: object) -> str:
    """Return a value of a TOML file as one would write it in a flag."""
    if isinstance(given, bool):
        return "true" if given else "false"
    if isinstance(given, str):
        return given
    if isinstance(given, int) and abs(given) <= NUMBER_MAX:
        return str(given)
    raise ValueError("a text, a number of 64 bits, true or false")


def _texts(setting: Setting, given: object) -> list[Any]:
    if isinstance(given, str):
        return [part for each in given.split(",") if (part := each.strip())]
    if not isinstance(given, list):
        raise ValueError("a list")
    return given if setting.key == "registries" else [_text(each) for each in given]


def _config(values: dict[str, Any], helper_path: str) -> Config:
    store = containerd_store(values) if values["store"] == "containerd" else values["store"]
    if values["allowed_clients"] and values["peer_key_file"] is None:
        shown = ",".join(map(str, values["allowed_clients"]))
        raise BadSetting("allowed_clients", shown, "nothing without peer_key_file: everybody is served then")
    return Config(
        registry_addr=values["registry_addr"],
        router_addr=values["router_addr"],
        observability_addr=values["observability_addr"],
        advertise_host=values["advertise_addr"],
        zone=values["zone"],
        store=store,
        data_dir=values["data_dir"],
        bootstrap=values["bootstrap"],
        mirror_resolve_timeout_s=values["mirror_resolve_timeout"],
        mirror_resolve_retries=values["mirror_resolve_retries"],
        resolve_tags=values["resolve_tags"],
        first_byte_timeout_s=values["first_byte_timeout"],
        tag_ttl_s=values["tag_ttl"],
        tag_stale_max_s=values["tag_stale_max"],
        keep_on_upstream_404=values["keep_on_upstream_404"],
        share_tags=values["share_tags"],
        filters=values["filters"],
        fallback=values["fallback"],
        default_registry=values["default_registry"],
        registries_only=values["registries_only"],
        registries=values["registries"],
        helper_path=helper_path,
        upload_rate_max=values["upload_rate_max"],
        shutdown_grace_s=values["shutdown_grace"],
        log_level=values["log_level"],
        log_format=values["log_format"],
        peer_key_file=values["peer_key_file"],
        allowed_clients=values["allowed_clients"],
        cache=cache_choice(values),
        scratch=scratch_choice(values),
        seed=values["seed"],
        upload_slots=values["upload_slots"],
        upload_slots_per_peer=values["upload_slots_per_peer"],
        download_rate_max=values["download_rate_max"],
    )
