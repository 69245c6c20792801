"""Run ``python -m afterimage``."""

import sys

from afterimage.cli import main

if __name__ == "__main__":
    sys.exit(main())
