"""The command as a whole: help, versions, exit codes, and what is not imported."""

import subprocess
import sys

import pytest
from click.testing import CliRunner

from p2pmirror.cli import COMMANDS, HIDDEN, main
from p2pmirror.version import VERSION


def test_version_is_printed():
    """`--version` prints the name and the version, and nothing else."""
    assert CliRunner().invoke(main, ["--version"]).output == f"p2pmirror {VERSION}\n"


def test_help_names_every_command():
    """`--help` lists all commands and shows an example."""
    output = CliRunner().invoke(main, ["--help"]).output
    assert all(f"  {name} " in output for name in COMMANDS)
    assert "Example:" in output


@pytest.mark.parametrize("name", [*COMMANDS, *HIDDEN])
def test_each_command_has_help_with_an_example(name):
    """Every command's `--help` ends well and has a line that can be copied."""
    result = CliRunner().invoke(main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"  p2pmirror {name}" in result.output.partition("Example:")[2]


@pytest.mark.parametrize("arguments", [["nothing"], ["status", "--nothing"], ["find"], ["demo", "--rate", "fast"]])
def test_wrong_usage_exits_with_2(arguments):
    """A command, an option or a value that there is not is a usage error."""
    assert CliRunner().invoke(main, arguments).exit_code == 2


def test_a_command_imports_only_what_it_needs():
    """`status --help` loads neither the agent's rooms nor trio nor httpx: it answers at once."""
    script = (
        "import sys; from p2pmirror.cli import main; main(['status', '--help'], standalone_mode=False);"
        "print(sorted({'trio', 'httpx', 'p2pmirror.demo', 'p2pmirror.node', 'p2pmirror.config'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_the_package_runs_as_a_module():
    """`python -m p2pmirror` is the same command."""
    done = subprocess.run([sys.executable, "-m", "p2pmirror", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"p2pmirror {VERSION}\n"
