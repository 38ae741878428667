"""What is looked at before the demo starts anything."""

import shutil
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from p2pmirror.demo.failed import DemoFailed
from p2pmirror.demo.image import put_image
from p2pmirror.demo.place import Place, check_ports, make_directory, places
from p2pmirror.demo.scenario import NAME
from p2pmirror.demo.verifying import verify
from p2pmirror.store.hostfiles import HostFiles
from p2pmirror.store.ocilayout import LayoutWriter


def test_the_nodes_are_where_the_readme_says():
    """Five nodes, 127.0.0.2 to 127.0.0.6, each with the ports that an agent has by default."""
    nodes = places(Path("/x"))
    assert [str(node.registry) for node in nodes] == [f"127.0.0.{number}:29999" for number in range(2, 7)]
    assert {node.router.port for node in nodes} == {29998}
    assert {node.observability.port for node in nodes} == {9090}


@pytest.mark.parametrize(("kind", "port"), [(socket.SOCK_STREAM, 29999), (socket.SOCK_DGRAM, 29998)])
def test_a_taken_port_is_named(kind, port):
    """An address on which somebody listens is named with its protocol; the free ones are not."""
    with socket.socket(socket.AF_INET, kind) as sock:
        sock.bind(("127.0.0.77", port))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        with pytest.raises(DemoFailed) as caught:
            check_ports([Place(1, "127.0.0.77", Path("/x")), Place(2, "127.0.0.78", Path("/x"))])
    protocol = "TCP" if kind == socket.SOCK_STREAM else "UDP"
    assert f"127.0.0.77:{port} {protocol}: another process listens there" in str(caught.value)
    assert "127.0.0.78" not in str(caught.value)


def test_an_address_that_the_machine_lacks_is_told_from_a_taken_one():
    """An address of another machine is not called taken."""
    with pytest.raises(DemoFailed, match="this machine does not have the address"):
        check_ports([Place(1, "192.0.2.77", Path("/x"))])


def test_too_little_room_is_said_with_numbers(tmp_path, monkeypatch):
    """The error says how much is needed, where, how much there is, and what to do; nothing is made."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 30))
    with pytest.raises(DemoFailed, match=r"needs 1\.1 GiB on disk, and .* has 1\.0 GiB left: set TMPDIR"):
        make_directory(208 << 20)
    assert list(tmp_path.iterdir()) == []


def test_the_directory_is_made_where_it_was_asked_for(tmp_path, monkeypatch):
    """TMPDIR decides."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert make_directory(1 << 20).parent == tmp_path


@pytest.mark.parametrize("spoil", ["flip", "cut", "remove"])
async def test_verifying_finds_what_is_wrong_on_the_disk(tmp_path, spoil):
    """Content that changed, is too short or is gone is named with its node; before that, all is well."""
    node = Place(3, "127.0.0.4", tmp_path)
    image = await put_image(LayoutWriter(node.layout, HostFiles()), NAME, 1 << 20, "verify")
    await verify([node], image.pulled)
    path = node.layout / "blobs" / "sha256" / image.pulled[-1].digest.hex
    data = path.read_bytes()
    path.unlink()
    if spoil != "remove":
        path.write_bytes(data[:-1] + (bytes([data[-1] ^ 1]) if spoil == "flip" else b""))
    with pytest.RaisesGroup(pytest.RaisesExc(DemoFailed, match=f"node 3: {image.pulled[-1].digest}")):
        await verify([node], image.pulled)
