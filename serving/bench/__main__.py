"""`python -m serving.bench`: the command alone."""

import typer

from serving.bench.cli import bench

if __name__ == "__main__":
    typer.run(bench)
