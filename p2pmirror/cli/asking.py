"""Questions to a running agent, for the commands that show what it says.

Laws: one question, one answer or one line on stderr and exit code 1; no proxy of the environment stands between this
command and an agent.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import click

AGENT_URL: Final = "http://127.0.0.1:9090"  # the observability address that an agent has unless it is told another
ANSWER_S: Final = 10.0  # a lookup ends within 1 s; more only on a machine that is out of breath

_Command = TypeVar("_Command", bound=Callable[..., Any])


def agent_option(command: _Command) -> _Command:
    """Add `--agent URL` to a command."""
    text = "The agent's observability address."
    return click.option("--agent", metavar="URL", default=AGENT_URL, show_default=True, help=text)(command)


def json_option(command: _Command) -> _Command:
    """Add `--json` to a command."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")(command)


def ask(agent: str, path: str, parameters: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the JSON object that the agent answers with.

    Raises `click.ClickException` (exit code 1) when there is no good answer, `click.UsageError` (2) for a wrong URL.
    """
    import httpx  # noqa: PLC0415  # a tenth of a second that `--help` need not wait for

    url = agent.rstrip("/") + path
    try:
        response = httpx.get(url, params=dict(parameters or {}), timeout=ANSWER_S, trust_env=False)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
        raise click.UsageError(f"--agent {agent}: not an address such as {AGENT_URL} ({error})") from None
    except httpx.TransportError as error:
        raise click.ClickException(f"no agent answers at {agent}: {_reason(error)}") from None
    return _object(agent, path, response.status_code, response.text, _decoded(response))


def _decoded(response: Any) -> Any:
    try:
        return response.json()
    except ValueError:
        return None


def _object(agent: str, path: str, status: int, text: str, value: Any) -> dict[str, Any]:
    if status == 200 and isinstance(value, dict):
        return value
    said = value.get("error") if isinstance(value, dict) else None
    detail = plain(str(said) if said else text.strip().partition("\n")[0])[:200]
    raise click.ClickException(f"{agent} answered {path} with {status}{': ' if detail else ''}{detail}")


def _reason(error: Exception) -> str:
    return plain(str(error)) or type(error).__name__


def plain(text: str) -> str:
    """Return foreign text without what moves a terminal's cursor or ends its line."""
    return "".join(character if character.isprintable() else "?" for character in text)
