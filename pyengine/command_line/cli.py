"""The command line ``pyengine``. Its commands are in `pyengine.command_line.commands`, which needs typer and rich."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line. Exit code 0; 1 when the demo finds a difference; 2 with one sentence for bad input."""
    try:
        run()
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        print(f"pyengine: {error}", file=sys.stderr)
        sys.exit(2)


def run() -> None:
    try:
        from pyengine.command_line.commands import app
    except ModuleNotFoundError as error:
        raise ImportError(f"the command line needs {error.name}: pip install 'pyengine-search[cli]'") from None
    app()


if __name__ == "__main__":
    main()
