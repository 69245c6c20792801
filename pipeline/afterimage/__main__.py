"""Run ``python -m afterimage``."""

import sys

from afterimage.warm import ask, end

if __name__ == "__main__":
    stage = sys.argv[1:2] == ["stage"]
    code = ask(sys.argv[1:]) if stage else None
    if code is None:
        from afterimage.cli import main

        code = main()
        if stage:
            end(code)
    sys.exit(code)
