"""A Ray cluster of simulated nodes on this machine, each with a Triton and an arena of its own, and how a test drives it.

`Cluster` is for the tests. The program that it starts (`python tests/cluster.py NODES`, settings as MEDSERVE_ variables) builds
the nodes with `ray.cluster_utils`, deploys the application in the shape "apart" with a replica on each node, says on one line
where it listens, and then obeys one command a line: "scale N", "kill-node N", "add-node", "drain N", "upgrade", "weigh JSON",
"limit CORES", "quit". Ray's head has no Triton.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from running import START_S, STOP_S
from shares import HEAD, RAY, TRITON, Shares

RESOURCE = "triton"
"""What a node with a Triton offers one of (ROOM), and a pool replica takes one of."""
BESIDE = "beside-a-triton"
"""What such a node offers plenty of, and a replica of any other pool takes one of: Ray's head has no Triton."""
ROOM = "CLUSTER_ROOM"
"""Replicas that a node has room for: 2 where an upgrade is to start new ones beside the old."""
APART = "CLUSTER_FRONT_APART"
"""1 where the routers are to be on the head: a node then has its pool's replicas and its Triton and nothing else."""
FRONT = "front"
"""What the head offers plenty of, and such a router takes one of."""
DRAIN_S = 90
"""The chart allows 60 unless told. With half a core a replica starts in no less, and the last one stays until then."""
POOL = "adaptive"
RAY_NODE = {"num_cpus": 1, "object_store_memory": 100 * 1024 * 1024}


class Cluster:
    """The program below, on free ports. A context manager.

    After start: `http_url`, `grpc_address`, `pid`, and `nodes`: one dict a node with its `triton` address, `triton_pid`,
    `region`, Ray's `id` and how often it was `limited` (`Shares.limited`). `log`: its standard error.
    """

    def __init__(self, nodes, room=1, replicas=0, front_apart=False, **environ):
        """`room`: replicas that a node has room for. `replicas`: at first, one a node unless said."""
        self._command = [sys.executable, __file__, str(nodes), str(replicas or nodes)]
        own = {"MEDSERVE_REPOSITORY__MODELS": "litemedsam", ROOM: str(room), APART: str(int(front_apart))}
        self._environ = {**os.environ, **own, **environ}

    def __enter__(self):
        self._log = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._environ,
            text=True,
            start_new_session=True,
        )
        self.pid = self._process.pid
        try:
            self._heed(self._line())
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        if self._log.closed:
            return
        try:
            self._process.communicate("quit\n" if self._process.poll() is None else None, timeout=STOP_S)
        except (subprocess.TimeoutExpired, BrokenPipeError):
            self._process.kill()
            self._process.wait()
        self.log = self._logged()
        self._log.close()

    def scale(self, replicas):
        """Have so many replicas, at most one a node; returns when they run."""
        return self._do(f"scale {replicas}")

    def kill_node(self, number):
        """A node loses its power."""
        return self._do(f"kill-node {number}")

    def add_node(self):
        """One node more, with nothing on it yet."""
        return self._do("add-node")

    def drain(self, number):
        """A node is drained as its preStop hook does it, and then goes."""
        return self._do(f"drain {number}")

    def upgrade(self):
        """The application again, with another code version: every replica of pools and router is replaced."""
        return self._do("upgrade")

    def limit(self, cores):
        """No node has more than this of the cores from now on, as by a pod's `resources.limits.cpu`."""
        return self._do(f"limit {cores}")

    def replicas(self):
        """How many replicas of the pool run."""
        self._do("count")
        return self._running

    def weigh(self, weights):
        """Other weights of the models' versions: nothing is replaced."""
        return self._do(f"weigh {json.dumps(weights)}")

    def _do(self, command):
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        self._heed(self._line())

    def _heed(self, said):
        self.http_url, self.grpc_address, self.nodes = said["http"], said["grpc"], said["nodes"]
        self._running = said["replicas"]

    def _line(self):
        """The next answer; Ray writes to the same output."""
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise AssertionError(f"the cluster failed:\n{self._logged()}")

    def _logged(self):
        self._log.seek(0)
        return self._log.read()


class Node:
    """One simulated node: an arena, a Triton that is brought back when it dies (as a kubelet would), and a Ray node."""

    def __init__(self, number, settings, run_dir, cluster, environ, shares):
        from serving import served
        from serving.embeddings import arena
        from serving.local.supervise import Supervisor
        from serving.local.triton import EmbeddedTriton

        self.region = arena.create(f"node{number}", settings.features.budget_bytes, served.slot_bytes(settings))
        self.triton = EmbeddedTriton(
            settings.repository.path,
            served.engine_names(settings),
            run_dir / f"t{number}",
            start_timeout_s=START_S,
            threads=settings.triton.threads,
            arena=self.region,
        )
        self.triton.start()
        self._supervisor = Supervisor(self.triton)
        self._supervisor.start()
        self._cluster = cluster
        own = {**environ, "MEDSERVE_TRITON__ADDRESS": self.triton.grpc_address, "MEDSERVE_FEATURES__REGION": self.region}
        self._ray_node = cluster.add_node(resources={RESOURCE: int(os.environ[ROOM]), BESIDE: 100}, env_vars=own, **RAY_NODE)
        self._limited = lambda: shares.limited(number)
        shares.node(number)
        shares.give(f"{number}/triton", TRITON, [self.triton.pid])
        shares.give(f"{number}/ray", RAY, pids(self._ray_node))

    @property
    def node_id(self):
        """Ray's."""
        return self._ray_node.node_id

    def kill(self):
        """Everything of it, at once and without a word."""
        from serving import shm

        self._supervisor.stop()
        os.killpg(self.triton.pid, signal.SIGKILL)
        self._cluster.remove_node(self._ray_node, allow_graceful=False)
        self.triton.stop()
        shm.remove(self.region)

    def said(self):
        found = {"triton": self.triton.grpc_address, "triton_pid": self.triton.pid, "region": self.region}
        return {**found, "limited": self._limited(), "id": self.node_id}


def pids(ray_node):
    """Of the daemons of a Ray node."""
    return [each.process.pid for several in ray_node.all_processes.values() for each in several]


class Program:
    """The cluster's own process."""

    def __init__(self, count, settings, run_dir):
        from serving.local.ports import free_ports
        from serving.local.ray import environment

        self._settings = settings
        self._run_dir = run_dir
        metrics = run_dir / "metrics"
        metrics.mkdir(parents=True)
        (run_dir / "ray").mkdir()
        own = {
            "RAY_TMPDIR": str(run_dir),  # not /tmp/ray, where a note of a running cluster would catch others
            # As long as a cluster gives HAProxy to notice that a router leaves; `medserve up` gives it a second.
            "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "10",
        }
        variables = environment(run_dir, metrics, settings.limits.max_body_bytes) | own
        self._replicas_only = {"OMP_NUM_THREADS": variables.pop("OMP_NUM_THREADS")}  # a Triton must not inherit it
        os.environ.update(variables)
        from ray.cluster_utils import Cluster as RayCluster

        self._http_port, self._grpc_port = free_ports(2)
        head = {"include_dashboard": False, "temp_dir": str(run_dir / "ray"), "env_vars": self._replicas_only, **RAY_NODE}
        head["resources"] = {FRONT: 100}
        self._cluster = RayCluster(initialize_head=True, head_node_args=head)
        self._shares = Shares(os.getpid())
        self._shares.give("head", HEAD, pids(self._cluster.head_node))
        self._nodes = {}
        self._made, self._limit = 0, None
        for _ in range(count):
            self.add_node()
        self._deploy()

    def _deploy(self):
        import ray
        from ray import serve
        from ray.serve.config import HTTPOptions, gRPCOptions

        from serving.local.ray import SERVICERS

        ray.init(address=self._cluster.address, log_to_driver=False, logging_level="ERROR")
        serve.start(
            proxy_location="HeadOnly",  # the nodes share one loopback: HAProxies on all of them would want the same ports
            http_options=HTTPOptions(host="127.0.0.1", port=self._http_port),
            grpc_options=gRPCOptions(port=self._grpc_port, grpc_servicer_functions=list(SERVICERS)),
            logging_config={"log_level": "ERROR", "enable_access_log": False},
        )
        self._run()

    def _run(self):
        """Deploy; where it runs already, change what is to be changed, and return when it is."""
        from ray import serve

        from serving import deployments

        serve.run(
            deployments.build_application(self._settings),
            name="medserve",
            route_prefix="/",
            blocking=False,
            external_scaler_enabled=not any(getattr(self._settings.pools, name).autoscale.max_replicas for name in (POOL,)),
        )

    def upgrade(self):
        limits = self._settings.limits
        changed = limits.model_copy(update={"max_text_chars": limits.max_text_chars + 1})
        self._settings = self._settings.model_copy(update={"limits": changed})
        self._run()
        self._settle()

    def weigh(self, weights):
        self._settings = self._settings.model_copy(update={"versions": json.loads(weights)})
        self._run()

    def drain(self, number):
        node = self._nodes.pop(int(number))
        command = [sys.executable, "-m", "serving", "node", "drain", "--address", self._cluster.address]
        command += ["--node-id", node.node_id, "--timeout", str(DRAIN_S)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
        if done.returncode:
            raise RuntimeError(f"node drain failed: {done.stderr}")
        node.kill()

    def _settle(self):
        """Until every deployment has its replicas and none is starting or stopping."""
        from ray import serve

        until = time.monotonic() + START_S
        while time.monotonic() < until:
            states = serve.status().applications["medserve"].deployments.values()
            if all(each.status == "HEALTHY" and set(each.replica_states) == {"RUNNING"} for each in states):
                return
            time.sleep(0.2)
        raise TimeoutError("the application did not settle")

    def scale(self, replicas):
        """By the call behind Ray Serve's own scaling API: a second `serve.run` would restart every replica."""
        import ray
        from ray import serve
        from ray.serve._private.common import DeploymentID
        from ray.serve.context import _get_global_client

        controller = _get_global_client()._controller
        ray.get(controller.update_deployment_replicas.remote(DeploymentID(POOL, "medserve"), int(replicas)))
        until = time.monotonic() + START_S
        while time.monotonic() < until:
            state = serve.status().applications["medserve"].deployments[POOL]
            if state.status == "HEALTHY" and dict(state.replica_states) == {"RUNNING": int(replicas)}:
                return
            time.sleep(0.1)
        raise TimeoutError(f"the pool has {dict(state.replica_states)}, not {replicas} replicas")

    def limit(self, cores):
        self._limit = float(cores)
        for number in self._nodes:
            self._shares.limit(number, self._limit)

    def kill_node(self, number):
        self._nodes.pop(int(number)).kill()

    def add_node(self):
        environ, shares = self._replicas_only, self._shares
        self._nodes[self._made] = Node(self._made, self._settings, self._run_dir, self._cluster, environ, shares)
        if self._limit:
            shares.limit(self._made, self._limit)
        self._made += 1

    def count(self):
        """Nothing: every answer says how many replicas run."""

    def say(self):
        from ray import serve

        nodes = {number: node.said() for number, node in self._nodes.items()}
        states = serve.status().applications["medserve"].deployments[POOL].replica_states
        said = {
            "http": f"http://127.0.0.1:{self._http_port}",
            "grpc": f"127.0.0.1:{self._grpc_port}",
            "nodes": nodes,
            "replicas": states.get("RUNNING", 0),
        }
        print(json.dumps(said), flush=True)

    def obey(self):
        """Commands until "quit" or the end of the input. A command is a method's name."""
        self.say()
        for line in sys.stdin:
            command, *words = line.split(maxsplit=1)
            if command == "quit":
                return
            getattr(self, command.replace("-", "_"))(*words)
            self.say()

    def stop(self):
        """All at once; nobody waits for an orderly end of it."""
        import ray

        ray.shutdown()
        for node in self._nodes.values():
            node.kill()
        self._cluster.remove_node(self._cluster.head_node, allow_graceful=False)


def guard(run_dir):
    """A process that clears up when this one is gone, however it went: Ray's HAProxy and its agents outlive their Ray."""
    from serving import shm
    from serving.local.up import _end_haproxy_of

    ours, shares = shm.prefix(), Shares(os.getpid())
    reading, writing = os.pipe()
    if os.fork():
        os.close(reading)
        return writing
    os.setsid()
    os.close(writing)
    os.read(reading, 1)
    time.sleep(1)  # Ray's processes notice that their parent is gone
    _end_haproxy_of(run_dir)
    for opened in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if opened.readlink().is_relative_to(run_dir) and opened.parts[2] != str(os.getpid()):
                os.kill(int(opened.parts[2]), signal.SIGKILL)
    shm.remove(ours)
    shares.remove()
    shutil.rmtree(run_dir, ignore_errors=True)
    os._exit(0)


def main():
    from serving.local.up import PREFIX
    from serving.settings import load

    count, replicas = map(int, sys.argv[1:3])
    run_dir = Path(tempfile.gettempdir()) / f"{PREFIX}{os.getpid()}"
    guard(run_dir)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    pools = {POOL: {"replicas": replicas, "resources": {RESOURCE: 1}}, "contrastive": {"resources": {BESIDE: 1}}}
    routers = {"resources": {FRONT: 1}} if os.environ[APART] == "1" else {}
    program = Program(count, load(shape="apart", pools=pools, router=routers), run_dir)
    try:
        program.obey()
    finally:
        program.stop()


if __name__ == "__main__":
    main()
