"""Run ``python -m afterimage``."""

import sys

from afterimage.warm import ask

if __name__ == "__main__":
    code = ask(sys.argv[1:]) if sys.argv[1:2] == ["stage"] else None
    if code is None:
        from afterimage.cli import main

        code = main()
    sys.exit(code)
