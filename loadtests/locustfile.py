"""Load from locust, headless, against a running server:

    locust -f loadtests/locustfile.py --headless -u 8 -t 60s --host http://127.0.0.1:8000 [--grpc 127.0.0.1:9000] \\
        [--shape steady|ramp|spike|soak|tide] [--retries N] [--thresholds FILE] [--html report.html] [S1Http ...]

The users are in `scenarios/`, one scenario a file; without names all of them run together, over gRPC where `--grpc` is given.
Beside each call locust's table has a row a stage (`stage`), read from Server-Timing. At the end each threshold
(`thresholds.toml`) passes or is missed, and a miss makes the exit status 1. For the judged figures see `medserve bench`:
locust's own clients take a millisecond and more of CPU a call, on the server's cores.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).absolute().parent), str(Path(__file__).absolute().parent.parent)]

import thresholds  # noqa: E402
from locust import events  # noqa: E402
from scenarios.s1_interactive import S1Grpc, S1Http  # noqa: E402
from scenarios.s2_cold_burst import S2Grpc, S2Http  # noqa: E402
from scenarios.s3_zero_shot import S3Grpc, S3Http  # noqa: E402
from scenarios.s4_mixed import S4Grpc, S4Http  # noqa: E402
from scenarios.s5_body_size import S5Grpc, S5Http  # noqa: E402
from shapes import SHAPES, Shape  # noqa: E402

__all__ = ["S1Grpc", "S1Http", "S2Grpc", "S2Http", "S3Grpc", "S3Http", "S4Grpc", "S4Http", "S5Grpc", "S5Http", "Shape"]


@events.init_command_line_parser.add_listener
def _options(parser):
    parser.add_argument("--grpc", default="", env_var="MEDSERVE_GRPC", help="host:port of the gRPC front")
    parser.add_argument("--shape", default="steady", choices=SHAPES, env_var="LOADTEST_SHAPE", help="users over time")
    parser.add_argument("--thresholds", default="", env_var="LOADTEST_THRESHOLDS", help="a file like loadtests/thresholds.toml")
    parser.add_argument(
        "--retries", type=int, default=0, help="how often a call that may go well later is sent again, as told to"
    )
    parser.add_argument("--think", type=float, default=0.2, help="seconds between the calls of S1")
    parser.add_argument("--pictures", default="", help="S1 opens the pictures of these seeds, 1,2,3, in turn; else each is new")
    parser.add_argument("--new", type=float, default=0.0, help="beside --pictures: the part that is new, 0..1")
    parser.add_argument("--prompts", type=int, default=10, help="prompts of S1 on an image")
    parser.add_argument("--model", default="synthetic-cxr-clip", help="the contrastive model that S3 and S4 ask")


@events.init.add_listener
def _without_grpc(environment, **_):
    """Users over gRPC are left out where no address is given."""
    if not environment.parsed_options or not environment.parsed_options.grpc:
        environment.user_classes = [each for each in environment.user_classes if not each.__name__.endswith("Grpc")]


@events.init.add_listener
def _read_thresholds(environment, **_):
    """A wrong file is told at the start, not after an hour."""
    options = environment.parsed_options
    try:
        environment.thresholds = thresholds.read(Path(options.thresholds) if options and options.thresholds else None)
    except ValueError as exc:
        raise SystemExit(f"locust: {exc}") from exc


@events.quitting.add_listener
def _judge(environment, **_):
    """Each threshold on a line; one miss makes the run fail. Workers leave it to their master."""
    if environment.runner is not None and environment.runner.__class__.__name__ == "WorkerRunner":
        return
    verdicts = thresholds.judge(thresholds.of_locust(environment), environment.thresholds)
    print("\nthresholds")
    for verdict in verdicts:
        print(f"  {verdict}")
    environment.process_exit_code = 0 if all(verdict.passed for verdict in verdicts) else 1
