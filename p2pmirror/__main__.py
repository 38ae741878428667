"""`python -m p2pmirror`: the same as the `p2pmirror` command."""

from p2pmirror.cli import main

if __name__ == "__main__":
    main(prog_name="p2pmirror")
