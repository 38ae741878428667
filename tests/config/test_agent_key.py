"""Promises of an agent's process about its key: without a usable file it does not start, and it prints no key."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.agents import agents

KEY = "0123456789abcdef0123456789abcdef"


@pytest.mark.parametrize(
    ("what", "says"), [("absent", "there is no"), ("short", "line 1 has 9 bytes"), ("directory", "not a regular file")]
)
def test_a_wrong_key_file_is_one_line_and_exit_code_2(tmp_path: Path, what: str, says: str) -> None:
    """The start ends with the setting, the file, what is allowed and what is wrong; its content is not shown."""
    path = tmp_path / "key"
    if what == "short":
        path.write_text("my-secret")
    if what == "directory":
        path.mkdir()
    with agents() as start:
        code, lines = start(peer_key_file=str(path)).end()
    assert (code, len(lines)) == (2, 1)
    assert lines[0].startswith(f"p2pmirror agent: peer_key_file = '{path}': allowed: a file of one or two lines")
    assert says in lines[0]
    assert "my-secret" not in lines[0]


def test_an_agent_says_which_keys_it_has_and_shows_none(tmp_path: Path) -> None:
    """Fingerprints in the log and a count in the metrics are all that leaves the process, and no false warning."""
    path = tmp_path / "key"
    path.write_text(f"{KEY}\n{KEY[::-1]}\n")
    with agents() as start:
        agent = start(peer_key_file=str(path))
        accepted = agent.event("keys.accepted")
        agent.running()
        metrics = agent.get("/metrics", port=9090)[1].decode()
        assert agent.get("/v2/")[0] == 200
        agent.signal()
        agent.end()
    assert [len(each) for each in accepted["fingerprints"]] == [8, 8]
    assert 'p2pmirror_node_peer_keys{state="accepted"} 2.0' in metrics
    said = "".join(agent.lines) + metrics
    assert "no cluster key" not in said
    assert KEY not in said
