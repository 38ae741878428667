"""Log lines to stderr: one event a line, as JSON for machines or as text for people.

Laws:
- a line is one line: whatever foreign text it holds, no byte of it ends the line or moves the terminal's cursor;
- foreign text has a bounded length, an exception is one field;
- what looks like a secret is not written, wherever it stands;
- to log is never an error.

Fields follow DESIGN.md, section "Logs and metrics": `time level event …`, times in UTC.
"""

import json
import logging
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, Final, Literal, TextIO

import msgspec

Format = Literal["json", "text"]

TEXT_CHARS_MAX: Final = 500  # of one field: whole names and digests, and a line that can still be read
EXCEPTION_CHARS_MAX: Final = 8_000  # the frames of some thirty calls; the rest of a deep recursion says nothing new
REDACTED: Final = "[redacted]"

_SECRET_NAMES: Final = frozenset(
    {"authorization", "p2pmirror-auth", "password", "secret", "token", "access_token", "peer_key", "credentials"}
)
_SECRETS: Final = (
    (re.compile(r"(?i)\b(bearer|basic) +[a-z0-9._~+/=-]{8,}"), r"\1 " + REDACTED),
    (re.compile(r"://[^/\s@]{1,200}@"), f"://{REDACTED}@"),
    (
        re.compile(r"(?i)\b(access_token|refresh_token|token|password|secret|signature|sig)=[^&\s\"']+"),
        r"\1=" + REDACTED,
    ),
    (re.compile(r"\bdckr_[a-z]+_[A-Za-z0-9_-]+"), REDACTED),  # Docker Hub writes these into its refusals
)
_OURS: Final = "p2pmirror"


def setup(level: str, form: Format, *, stream: TextIO | None = None) -> None:
    """Send the agent's own lines from `level` on, and everybody else's warnings, to `stream` (stderr).

    `level` is a name that `logging` knows, in any case; ValueError otherwise. A second call replaces the first.
    """
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        raise ValueError(f"log level {level[:40]!r} is none of DEBUG, INFO, WARNING, ERROR")
    # What no line of ours says is not looked up for each (Python's "Logging HOWTO", section "Optimization").
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(max(number, logging.WARNING))
    logging.getLogger(_OURS).setLevel(number)
    logging.captureWarnings(capture=True)


def event(logger: logging.Logger, level: int, name: str, fields: Mapping[str, Any]) -> None:
    """Log an event with its fields, in their order. Values are JSON's, or anything whose `str()` tells enough."""
    if logger.isEnabledFor(level):
        # `Logger.log` would look up who called, which costs more than all the rest and is in no line of ours.
        record = logging.LogRecord(logger.name, level, "", 0, name, None, None)
        record.__dict__["fields"] = fields
        logger.handle(record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, event, the event's fields, the logger, and the exception if there is one."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = _Clock()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, ASCII only."""
        entry = _entry(self, self._clock, record)
        try:
            line = _QUICK_ENCODER.encode(entry)
        except UnicodeEncodeError:  # half of a surrogate pair
            return _encoded(entry)
        return line.decode("ascii") if line.isascii() and b"\x7f" not in line else _encoded(entry)


class TextFormatter(logging.Formatter):
    """`time LEVEL event name=value …`: values that hold more than plain characters are quoted as in JSON."""

    def __init__(self) -> None:
        super().__init__()
        self._clock = _Clock()

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, ASCII only."""
        entry = _entry(self, self._clock, record)
        front = f"{entry.pop('time')} {entry.pop('level'):<7} {_encoded(entry.pop('event'))[1:-1]}"
        return " ".join((front, *(f"{_plain(name)}={_plain(value)}" for name, value in entry.items())))


class _Clock:
    """Writes times as RFC 3339 with milliseconds; the second's text is made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def text(self, created: float) -> str:
        second = int(created)
        if second != self._second:
            self._text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
            self._second = second
        return f"{self._text}.{int((created - second) * 1000):03d}Z"


def _entry(formatter: logging.Formatter, clock: _Clock, record: logging.LogRecord) -> dict[str, Any]:
    fields: Mapping[str, Any] | None = getattr(record, "fields", None)
    entry: dict[str, Any] = {"time": clock.text(record.created), "level": record.levelname, "event": _message(record)}
    if fields is not None:
        for name, value in fields.items():
            if name not in entry:  # the first three are not to be had
                entry[name] = _value(name, value)
    entry["logger"] = record.name
    if record.exc_info:
        entry["exception"] = _middle_cut(_without_secrets(formatter.formatException(record.exc_info)))
    return entry


def _message(record: logging.LogRecord) -> str:
    if hasattr(record, "fields") and type(record.msg) is str:  # the name of an event, which is our own word
        return record.msg
    try:
        text = record.getMessage()
    except (TypeError, ValueError, KeyError):  # a call whose arguments do not fit: say what there is
        text = f"{record.msg} {record.args!r}"
    return _bounded(_without_secrets(text))


def _value(name: str, value: object) -> object:
    kind = type(value)
    if kind is str:
        text: str = value  # type: ignore[assignment]  # `kind is str` says so, quicker than isinstance
        return REDACTED if name.lower() in _SECRET_NAMES else _foreign(text)
    if value is None or kind in {int, bool}:
        return value
    if isinstance(value, float):
        return round(value, 6) if abs(value) < 1e300 else str(value)  # JSON has no infinity
    if name.lower() in _SECRET_NAMES:
        return REDACTED
    if isinstance(value, list | tuple):
        return [_value("", each) for each in value[:20]]  # twenty peers of one request; more is a page, not a line
    return _foreign(str(value))


def _foreign(text: str) -> str:
    if len(text) > TEXT_CHARS_MAX:
        text = _bounded(text)
    # Names and digests have none of these characters, so that the hot path pays for three searches and no pattern.
    return _without_secrets(text) if " " in text or "=" in text or "@" in text or "dckr_" in text else text


def _without_secrets(text: str) -> str:
    for pattern, instead in _SECRETS:
        text = pattern.sub(instead, text)
    return text


def _bounded(text: str) -> str:
    return text if len(text) <= TEXT_CHARS_MAX else f"{text[:TEXT_CHARS_MAX]}… ({len(text)} characters)"


def _middle_cut(text: str) -> str:
    """Keep both ends of a traceback: where it began and what it came to."""
    if len(text) <= EXCEPTION_CHARS_MAX:
        return text
    half = EXCEPTION_CHARS_MAX // 2
    return f"{text[:half]}\n…\n{text[-half:]}"


def _plain(value: object) -> str:
    if isinstance(value, str) and value.isascii() and value.isprintable() and not set(value) & {" ", '"', "=", "\\"}:
        return value
    return _encoded(value)


def _encoded(value: object) -> str:
    """Return JSON of printable characters: the one control character that JSON lets stand is escaped too."""
    return _ENCODER.encode(value).replace("\x7f", "\\u007f")


_ENCODER: Final = json.JSONEncoder(ensure_ascii=True, check_circular=False, separators=(",", ":"))
_QUICK_ENCODER: Final = msgspec.json.Encoder()  # a fifth of the time, but it leaves what is not ASCII as it is
