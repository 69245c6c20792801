#!/usr/bin/env python3
"""Delete jobs, and their pods with them."""

import os
import subprocess
import sys

if __name__ == "__main__":
    space = os.environ.get("AFTERIMAGE_NAMESPACE")
    command = [
        "kubectl",
        *(["--namespace", space] if space else []),
        "delete",
        "job",
        "--wait=false",
    ]
    sys.exit(subprocess.run([*command, *sys.argv[1:]], check=False).returncode)
