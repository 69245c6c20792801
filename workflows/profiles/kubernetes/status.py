#!/usr/bin/env python3
"""Say of one job whether it is running, a success, or failed; a job that is gone has failed."""

import json
import os
import subprocess
import sys

if __name__ == "__main__":
    space = os.environ.get("AFTERIMAGE_NAMESPACE")
    command = ["kubectl", *(["--namespace", space] if space else []), "get", "job", sys.argv[-1]]
    done = subprocess.run([*command, "--output", "json"], text=True, capture_output=True)
    if done.returncode and "NotFound" not in done.stderr:
        print("running")  # the cluster did not answer: ask again later
    else:
        status = json.loads(done.stdout)["status"] if done.stdout else {"failed": 1}
        print(
            "success"
            if status.get("succeeded")
            else "failed"
            if status.get("failed")
            else "running"
        )
