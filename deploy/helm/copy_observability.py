"""Copies rules and dashboards into the chart, which reaches nothing outside it: `python deploy/helm/copy_observability.py`."""

import shutil
from pathlib import Path

HERE = Path(__file__).resolve().parent
SOURCE, TARGET = HERE.parent / "observability", HERE / "medserve" / "observability"

if __name__ == "__main__":
    for folder, pattern in (("rules", "*.yaml"), ("dashboards", "*.json")):
        shutil.rmtree(TARGET / folder, ignore_errors=True)
        for path in sorted((SOURCE / folder).glob(pattern)):
            (TARGET / folder).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, TARGET / folder / path.name)
