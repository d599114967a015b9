"""A pool in simulated time: Poisson arrivals, a gate or none, and two engines that share one processor."""

import heapq
from collections import deque
from dataclasses import dataclass, field
from itertools import cycle

import numpy as np

from serving.domain.image import EncodedImage, ImageHandle
from serving.domain.prompt import Box, ObjectPrompt
from serving.domain.request import Deadline, Encode, Priority, Request, Segment
from serving.router.admission import Permit
from serving.router.neighbours import URGENCY
from serving.router.work import Lane, work_of

PROMPT = Segment(ImageHandle("a.b"), (ObjectPrompt(Box(0, 0, 9, 9)),))
IMAGE = Encode(EncodedImage(b"pixels"))
FRONT_S = 0.004
"""What an answered request spends outside the engines: wire, hops, parsing."""


@dataclass(frozen=True)
class Class:
    """Requests of one kind. `service_s`: mean of a gamma distribution whose deviation is `spread` of it."""

    task: object
    priority: Priority
    rate: float
    service_s: float
    deadline_s: float
    spread: float = 0.3


class Doors:
    """Several gates before the same engines, that requests come to in turn."""

    def __init__(self, gates):
        self._gates, self._turn, self._entered = gates, cycle(gates), {}

    def __len__(self):
        return sum(map(len, self._gates))

    def enter(self, request, now_s):
        gate = next(self._turn)
        verdict, load = gate.enter(request, now_s)
        self._entered[verdict] = gate
        return verdict, load

    def leave(self, permit, now_s, spent):
        self._entered.pop(permit).leave(permit, now_s, spent)


@dataclass(eq=False)
class Job:
    of: Class
    arrived_s: float
    left_s: float
    service_s: float
    began_s: float = 0.0
    permit: object = None

    @property
    def deadline_s(self):
        return self.arrived_s + self.of.deadline_s


@dataclass
class Outcome:
    """`latency_s`: class -> of each answered in time. `useful_s`: their service. `refused`: (reason, retry_after_s)."""

    latency_s: dict = field(default_factory=dict)
    useful_s: float = 0.0
    late: int = 0
    refused: list = field(default_factory=list)
    most_inside: int = 0

    def p99_s(self, of):
        return float(np.quantile(self.latency_s[of], 0.99))

    def answered(self):
        return sum(map(len, self.latency_s.values()))


def arrivals(classes, seconds, seed):
    rng = np.random.default_rng(seed)
    jobs = []
    for of in classes:
        times = rng.uniform(0, seconds, rng.poisson(of.rate * seconds))
        shape = 1 / of.spread**2
        services = rng.gamma(shape, of.service_s / shape, len(times))
        jobs += [Job(of, at, service, service) for at, service in zip(times, services, strict=True)]
    return sorted(jobs, key=lambda job: job.arrived_s)


class Pool:
    """One engine a lane, one job at a time in each, the urgent first; the encoder works while the decoder is idle."""

    def __init__(self, gate, told_apart, since_s=0.0):
        self._gate, self._told_apart, self._since_s = gate, told_apart, since_s
        self._waiting = {lane: {priority: deque() for priority in URGENCY} for lane in Lane}
        self._at_work = dict.fromkeys(Lane)
        self.now_s = 0.0
        self.after = lambda: None
        """Called when a job is done."""
        self.outcome = Outcome()

    def next_done_s(self):
        """When the next job is done, or None."""
        job = self._running()
        return None if job is None else self.now_s + job.left_s

    def _running(self):
        return next((job for job in self._at_work.values() if job is not None), None)

    def run_until(self, at_s):
        while True:
            job = self._running()
            if job is None or self.now_s + job.left_s > at_s:
                if job is not None:
                    job.left_s -= at_s - self.now_s
                self.now_s = at_s
                return
            self.now_s += job.left_s
            self._at_work[work_of(job.of.task).lane] = None
            self._finish(job)
            self._take_up()

    def arrive(self, job):
        self.run_until(job.arrived_s)
        if self._gate is not None:
            request = Request(job.of.task, Deadline(job.deadline_s), "r", priority=job.of.priority)
            verdict, _ = self._gate.enter(request, self.now_s)
            if not isinstance(verdict, Permit):
                self.outcome.refused.append((verdict.reason, verdict.retry_after_s))
                return
            job.permit = verdict
            self.outcome.most_inside = max(self.outcome.most_inside, len(self._gate))
        self._waiting[work_of(job.of.task).lane][job.of.priority].append(job)
        self._take_up()

    def _take_up(self):
        for lane, waiting in self._waiting.items():
            while self._at_work[lane] is None and (urgent := next(filter(None, waiting.values()), None)):
                job = urgent.popleft()
                if job.deadline_s > self.now_s:
                    self._at_work[lane], job.began_s = job, self.now_s
                else:
                    self.outcome.late += 1
                    self._leave(job, None)

    def _finish(self, job):
        took_s = self.now_s - job.arrived_s
        stage = "encode" if job.of.task is IMAGE else "decode_mask"
        worked_s = self.now_s - job.began_s
        spent = {stage: worked_s, "queue": took_s - worked_s} if self._told_apart else {stage: took_s}
        self._leave(job, spent)
        self.after()
        if job.arrived_s < self._since_s:
            return
        if took_s + FRONT_S > job.of.deadline_s:
            self.outcome.late += 1
            return
        self.outcome.latency_s.setdefault(job.of, []).append(took_s + FRONT_S)
        self.outcome.useful_s += job.service_s

    def _leave(self, job, spent):
        if job.permit is not None:
            self._gate.leave(job.permit, self.now_s, spent)


def simulate(classes, gate, *, seconds=120.0, seed=0, told_apart=True, since_s=0.0):
    """`told_apart`: whether the answers' stages name the wait for the engine, or hide it in the engine's own stage.

    `since_s`: what came before is not told of in the outcome's latencies.
    """
    pool = Pool(gate, told_apart, since_s)
    for job in arrivals(classes, seconds, seed):
        pool.arrive(job)
    pool.run_until(seconds + 60)
    return pool.outcome


def simulate_users(sessions, gate, *, seconds=30.0, seed=0, think_s=0.0, slowness=lambda at_s: 1.0):
    """Users who wait for each answer: each goes through its own session (a list of classes) again and again.

    `slowness`: of the machine at a time, a factor on the services that are asked for then.
    """
    rng = np.random.default_rng(seed)
    pool = Pool(gate, told_apart=True)
    users = [cycle(session) for session in sessions]
    coming = [(0.0, number) for number in range(len(users))]
    asking = {}

    def come_again():
        finished = [n for n, job in asking.items() if job.left_s is None]
        for number in finished:
            del asking[number]
            heapq.heappush(coming, (pool.now_s + FRONT_S + think_s, number))

    def finish(job, original=pool._finish):
        job.left_s = None
        original(job)

    pool._finish, pool.after = finish, come_again
    while coming and coming[0][0] < seconds:
        done_s = pool.next_done_s()
        if done_s is not None and done_s <= coming[0][0]:
            pool.run_until(done_s)
            continue
        at_s, number = heapq.heappop(coming)
        of = next(users[number])
        service_s = slowness(at_s) * rng.gamma(1 / of.spread**2, of.service_s * of.spread**2)
        asking[number] = Job(of, at_s, service_s, service_s)
        pool.arrive(asking[number])
        while not coming and (done_s := pool.next_done_s()) is not None:
            pool.run_until(done_s)
    return pool.outcome
