"""The one error of this room."""


class DemoFailed(Exception):  # named for what happened
    """The demo cannot begin or did not end well; `str()` is a text for people, of one line or more."""
