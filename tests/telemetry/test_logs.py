"""Log lines: their shapes, and what may not be in them."""

import io
import json
import logging
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from p2pmirror.telemetry import logs

log = logging.getLogger("p2pmirror.test")


@pytest.fixture(autouse=True)
def logging_as_before():
    """Give the root logger back as pytest had it."""
    root, ours = logging.getLogger(), logging.getLogger("p2pmirror")
    kept = root.handlers[:], root.level, ours.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:], ours.level = kept[0], kept[2]
    root.setLevel(kept[1])


@pytest.fixture
def written():
    """Log as JSON from DEBUG on; call for the lines that were written."""
    stream = io.StringIO()
    logs.setup("debug", "json", stream=stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


def test_an_event_is_one_json_object(written):
    """Time (UTC, milliseconds), level and event come first, then the event's fields in their order."""
    logs.event(
        log, logging.INFO, "request", {"status": 200, "seconds": 0.25, "peer": None, "ok": True, "all": ["a", 1]}
    )
    [line] = written()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line == {
        "level": "INFO",
        "event": "request",
        "status": 200,
        "seconds": 0.25,
        "peer": None,
        "ok": True,
        "all": ["a", 1],
        "logger": "p2pmirror.test",
    }
    assert list(line)[:3] == ["level", "event", "status"]


def test_the_first_fields_are_not_to_be_had(written):
    """Fields named as time, level or event do not replace them."""
    logs.event(log, logging.INFO, "true", {"event": "false", "level": "false", "time": "never"})
    [line] = written()
    assert (line["event"], line["level"]) == ("true", "INFO")
    assert line["time"] != "never"


def test_plain_messages_are_events(written):
    """An ordinary log call becomes the event; one whose arguments do not fit still says what it has."""
    log.warning("lost %d of %s", 3, "five")
    log.warning({"not": "text"})
    assert [line["event"] for line in written()] == ["lost 3 of five", "{'not': 'text'}"]
    record = logging.LogRecord("p2pmirror.test", logging.INFO, "", 0, "lost %d", ("many",), None)
    assert json.loads(logs.JsonFormatter().format(record))["event"] == "lost %d ('many',)"


def test_an_exception_is_one_field(written):
    """A traceback is one JSON field, bounded from the middle: its beginning and what it came to are kept."""
    try:
        raise ValueError("x" * 20_000 + "the end")
    except ValueError:
        log.exception("broken")
    [line] = written()
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("the end")
    assert len(line["exception"]) < logs.EXCEPTION_CHARS_MAX + 10


def test_foreign_text_is_bounded(written):
    """However long a text is that came from outside, the line stays short, and tells the length."""
    logs.event(log, logging.INFO, "e", {"text": "y" * 10_000, "list": ["z"] * 1_000})
    log.info("%s", "w" * 10_000)
    for line in written():
        assert len(json.dumps(line)) < 1_200
    assert written()[0]["text"].endswith("(10000 characters)")
    assert len(written()[0]["list"]) == 20


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer SECRETSECRET",
        "basic SECRETSECRET=",
        "https://user:SECRETSECRET@registry.example.com/v2/",
        "GET /token?service=x&access_token=SECRETSECRET&y=1",
        "token=SECRETSECRET",
        "toomanyrequests: limit of dckr_jti_SECRETSECRET=",
        "password=SECRETSECRET",
    ],
)
def test_secrets_are_not_written(written, text):
    """Credentials are taken out of messages, fields and exceptions, whatever form they have."""
    log.info(text)
    log.info("%s", text)
    logs.event(log, logging.INFO, "e", {"error": text})
    try:
        raise RuntimeError(text)
    except RuntimeError:
        log.exception("broken")
    assert len(written()) == 4
    assert "SECRETSECRET" not in json.dumps(written())


def test_fields_with_a_secret_name_are_not_written(written):
    """A field that is named as a secret has no value in the log, of whatever type."""
    logs.event(log, logging.INFO, "e", {"Authorization": "abc", "peer_key": b"abc", "password": "", "name": "abc"})
    [line] = written()
    assert [line[name] for name in ("Authorization", "peer_key", "password")] == [logs.REDACTED] * 3
    assert line["name"] == "abc"


@given(text=st.text(), value=st.one_of(st.text(), st.floats(), st.integers(), st.binary(), st.none()))
def test_a_line_is_one_line(text, value):
    """Arbitrary text, also in the names of fields, gives one line of printable ASCII in both forms."""
    for form in ("json", "text"):
        stream = io.StringIO()
        logs.setup("INFO", form, stream=stream)
        log.info(text)
        logs.event(log, logging.INFO, "event", {"field": value, text or "x": text})
        lines = stream.getvalue().split("\n")
        assert len(lines) == 3
        assert all(line.isascii() and line.isprintable() for line in lines)
        if form == "json":
            assert json.loads(lines[1])["event"] == "event"


def test_text_for_people():
    """The text form is time, level, event and name=value; only what is more than a word is quoted."""
    stream = io.StringIO()
    logs.setup("INFO", "text", stream=stream)
    logs.event(log, logging.INFO, "request", {"status": 200, "reason": "not found", "name": "docker.io/a:b"})
    line = stream.getvalue().partition(" ")[2]
    assert line == 'INFO    request status=200 reason="not found" name=docker.io/a:b logger=p2pmirror.test\n'


def test_levels():
    """Ours are written from the given level on, others' from WARNING on; a second call replaces the first."""
    streams = io.StringIO(), io.StringIO()
    logs.setup("DEBUG", "text", stream=streams[0])
    logs.setup("info", "text", stream=streams[1])
    log.debug("too fine")
    log.info("ours")
    logging.getLogger("hpack").info("not ours")
    logging.getLogger("hpack").warning("not ours, but it matters")
    assert streams[0].getvalue() == ""
    assert len(streams[1].getvalue().splitlines()) == 2
    with pytest.raises(ValueError, match="LOUD"):
        logs.setup("LOUD", "json")
