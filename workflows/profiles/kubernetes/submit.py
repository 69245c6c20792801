#!/usr/bin/env python3
"""Submit one job of Snakemake to Kubernetes: a pod of the image, with the volume. Print its name.

Environment: AFTERIMAGE_IMAGE, the image; AFTERIMAGE_CLAIM, the claim of the volume that holds data and
outputs, which all nodes can write (ReadWriteMany); AFTERIMAGE_MOUNT, where it is mounted, the same here and
there (default /study); AFTERIMAGE_NAMESPACE (default: that of kubectl).
"""

import json
import os
import subprocess
import sys
from pathlib import Path


def manifest(script: Path, variables: dict[str, str]) -> dict[str, object]:
    """Return the Job that runs a job script of Snakemake."""
    head = next(
        line for line in script.read_text().splitlines() if line.startswith("# properties")
    )
    job = json.loads(head.partition("=")[2])
    wanted = job["resources"]
    ask = {"cpu": str(job["threads"]), "memory": f"{wanted['mem_mb']}M"}
    if wanted.get("gpu"):
        ask["nvidia.com/gpu"] = str(wanted["gpu"])
    # More memory than asked for ends the pod; more processor time is only taken away.
    limits = {key: value for key, value in ask.items() if key != "cpu"}
    passed = ("HF_HUB_OFFLINE", "TRANSFORMERS_VERBOSITY", "OMP_NUM_THREADS")
    container = {
        "name": "job",
        "image": variables["AFTERIMAGE_IMAGE"],
        "command": ["/bin/sh", str(script)],
        "env": [{"name": key, "value": variables[key]} for key in passed if key in variables],
        "resources": {"requests": ask, "limits": limits},
        "volumeMounts": [
            {"name": "study", "mountPath": variables.get("AFTERIMAGE_MOUNT", "/study")}
        ],
    }
    claim = {"claimName": variables["AFTERIMAGE_CLAIM"]}
    pod = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "study", "persistentVolumeClaim": claim}],
    }
    rule = job["rule"].replace("_", "-")
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"generateName": f"afterimage-{rule}-", "labels": {"app": "afterimage"}},
        "spec": {
            "backoffLimit": 0,  # Snakemake tries again, with more memory
            "activeDeadlineSeconds": 60 * int(wanted["runtime"]),
            "ttlSecondsAfterFinished": 86400,
            "template": {"metadata": {"labels": {"app": "afterimage"}}, "spec": pod},
        },
    }


if __name__ == "__main__":
    space = os.environ.get("AFTERIMAGE_NAMESPACE")
    command = ["kubectl", *(["--namespace", space] if space else []), "create", "-f", "-"]
    absent = [key for key in ("AFTERIMAGE_IMAGE", "AFTERIMAGE_CLAIM") if key not in os.environ]
    if absent:
        sys.exit(f"set {' and '.join(absent)}: see docs/clusters.md")
    body = json.dumps(manifest(Path(sys.argv[-1]).resolve(), dict(os.environ)))
    name = ["--output", "jsonpath={.metadata.name}"]
    done = subprocess.run([*command, *name], input=body, text=True, stdout=subprocess.PIPE)
    print(done.stdout.strip())
    sys.exit(done.returncode)
