"""Settings from anywhere: a file, the environment or a flag gives settings, or one line that says why not."""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p2pmirror.config import SETTINGS, BadSetting, Config, load
from tests.hostile.bearing import CASES, CASES_LONG, SEEDS, Reader, bear, bear_mutants
from tests.hostile.mutation import of_bytes
from tests.hostile.readers import TEXT_INSERTS

FILE_S_MAX = 20.0  # Python's reader takes the square of `a.a.a…`: who configures an agent so waits for it himself
FILES = [
    b'store = "oci-layout:/images"\nzone = "a"\nregistry_addr = "10.0.0.1:29999"\nupload_rate_max = 1000000\n',
    (
        b'bootstrap = "static:10.0.0.1,10.0.0.2"\nfilters = ["!ghcr.io/.*", "docker.io/(a|b)/.*"]\nfallback = false\n'
        b'peer_key_file = "/etc/key"\nallowed_clients = ["10.0.0.0/8", "fd00::/8"]\n'
    ),
    b'log_level = "DEBUG"\nmirror_resolve_retries = 7\n[[registries]]\nname = "ghcr.io"\nmode = "peers"\n',
]
TOML_INSERTS = (
    b"[",
    b"[[a]]\n",
    b"a.b.c = 1\n",
    b'"',
    b"'''",
    b'"\\n" = 1\n',
    b"\\ud800",
    b"= 1979-05-27T07:32:00Z\n",
    b"nan",
    b"0x" + b"f" * 5000,
    b"9" * 5000,
    b"1e99999",
    b"[" * 3000,
    b"{a={a=" * 500,
    b"a." * 200,
    b"\xff",
    b"\r",
)
TEXTS = [
    b":29999",
    b"[fd00::1]:80",
    b"10.0.0.1",
    b"zone-a",
    b"oci-layout:/images",
    b"containerd",
    b"/run/x.sock",
    b"k8s.io",
    b"static:10.0.0.1",
    b"10.0.0.0/8,fd00::/8",
    b"30ms",
    b"512Mi",
    b"5",
    b"true",
    b"docker.io/.*,!ghcr.io/.*",
    b"ghcr.io,quay.io:443",
    b"INFO",
    b"json",
]


@pytest.fixture
def file() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        yield Path(directory) / "settings.toml"


def from_file(file: Path) -> Reader:
    def read(data: bytes) -> Config:
        file.write_bytes(data)
        return load({}, {}, file)

    return Reader("settings file", read, of_bytes(FILES, TOML_INSERTS), (BadSetting,), case_s_max=FILE_S_MAX)


def from_texts(texts: Mapping[str, str], *, as_flags: bool) -> Config:
    if as_flags:
        return load({}, texts)
    return load({f"P2PMIRROR_{key.upper()}": text for key, text in texts.items()}, {})


def of_one_key(key: str, *, as_flags: bool) -> Reader:
    def read(data: bytes) -> Config:
        return from_texts({key: data.decode("utf-8", "surrogateescape")}, as_flags=as_flags)

    return Reader(f"{key} as {'flag' if as_flags else 'variable'}", read, of_bytes(TEXTS, TEXT_INSERTS), (BadSetting,))


@pytest.mark.parametrize("seed", SEEDS)
def test_changed_files(file: Path, seed: int, long: bool) -> None:
    """A settings file with anything changed in it is read, or refused in one line."""
    bear_mutants(from_file(file), seed, CASES_LONG // 3 if long else CASES // 3)


def test_any_file(file: Path, long: bool) -> None:
    """Whatever a file holds, it is read, or refused in one line; so is any text in place of any value."""
    key = st.sampled_from([setting.key for setting in SETTINGS])
    values = st.text(max_size=60) | st.integers() | st.booleans() | st.sampled_from(["[1]", "{a=1}", "07:32:00", "inf"])
    lines = st.builds(
        lambda key, value: f"{key} = {value if not isinstance(value, bool) else str(value).lower()}", key, values
    )
    documents = (
        st.lists(lines | st.text(max_size=30), max_size=4)
        .map("\n".join)
        .map(lambda text: text.encode("utf-8", "replace"))
    )
    reader = from_file(file)

    @settings(max_examples=3_000 if long else 200, deadline=None)
    @given(documents)
    def check(data: bytes) -> None:
        bear(reader, data, reader.name)

    check()


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.key)
@pytest.mark.parametrize("as_flags", [True, False], ids=["flag", "variable"])
def test_changed_values(setting, as_flags: bool, long: bool) -> None:
    """Each setting is read from what may stand there, or refused in one line that names it."""
    bear_mutants(of_one_key(setting.key, as_flags=as_flags), 1, 2_000 if long else 100)


def test_variables_with_any_name(long: bool) -> None:
    """A variable that is none of ours, whatever it is called, is refused in one line."""
    random = Random(1)
    make = of_bytes([f"P2PMIRROR_{setting.key.upper()}".encode() for setting in SETTINGS], TEXT_INSERTS)

    def read(data: bytes) -> Config:
        name = data.replace(b"\0", b"").decode("utf-8", "surrogateescape")
        return load({name: "1"}, {})

    for case in range(CASES if long else 200):
        how, data = make(random)
        bear(Reader("variable", read, make, (BadSetting,)), data, f"variable, seed 1, case {case} ({how})")
