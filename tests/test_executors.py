"""Work beyond this process: any executor, and what happens when its workers die."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import Future, ProcessPoolExecutor

import numpy as np
import pytest

from markovot import costs
from markovot.datasets import load_mutag
from markovot.pairwise import distance_matrix, plan, running

SETTING = {"cost": costs.ZeroOne(), "delta": 0.2, "epsilon": 0.01, "progress": False}


@pytest.fixture
def chains():
    return load_mutag().chains[:40]


class Here:
    """An executor that works at once, and fails when it is told to."""

    def __init__(self, failures=()):
        self.calls, self.failures = 0, set(failures)

    def submit(self, function, *arguments):
        self.calls += 1
        future: Future = Future()
        if self.calls in self.failures:
            future.set_exception(OSError("the worker died"))
        else:
            future.set_result(function(*arguments))
        return future


@pytest.mark.parametrize("failures", [(), (1, 2), (3, 5, 9)])
def test_any_executor_gives_the_same_bits_though_its_workers_die(monkeypatch, chains, failures):
    monkeypatch.setattr(plan, "GROUP_ENTRIES", 300)
    executor = Here(failures)
    there = distance_matrix(chains, executor=executor, **SETTING)
    here = distance_matrix(chains, **SETTING)
    np.testing.assert_array_equal(there.value, here.value)
    assert executor.calls > 10 + len(failures)


def test_few_blocks_are_with_the_executor_at_a_time(monkeypatch, chains):
    monkeypatch.setattr(plan, "GROUP_ENTRIES", 100)
    monkeypatch.setattr(running, "IN_FLIGHT", 7)

    class Patient(Here):
        waiting = most = 0

        def submit(self, function, *arguments):
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            future = super().submit(function, *arguments)
            self.waiting -= 1
            return future

    real, held = running.wait, []

    def wait(futures, **options):
        held.append(len(futures))
        return real(futures, **options)

    monkeypatch.setattr(running, "wait", wait)
    distance_matrix(chains, executor=Patient(), **SETTING)
    assert max(held) == 7


def test_an_executor_that_keeps_failing_is_given_up(tmp_path, chains):
    with pytest.raises(RuntimeError, match=r"executor: a block of \d+ pairs failed 3 times, .*the worker died"):
        distance_matrix(chains, executor=Here(range(2, 1000)), checkpoint=tmp_path / "work", **SETTING)


def test_processes():
    chains = load_mutag().chains[:12]
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        there = distance_matrix(chains, executor=executor, **SETTING)
    np.testing.assert_array_equal(there.value, distance_matrix(chains, **SETTING).value)


# A cluster of real processes opens sockets and leaves closing them to the garbage collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:distributed", "ignore::UserWarning:distributed")
def test_a_dask_cluster_that_loses_a_worker_gives_the_same_bits(monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(plan, "GROUP_ENTRIES", 300)
    chains = load_mutag().chains[:60]
    accuracy = {"rtol": 1e-10}
    killed = []

    class Watched:
        """Kills a worker after some blocks."""

        def __init__(self, executor, workers):
            self.executor, self.workers, self.submitted = executor, workers, 0

        def submit(self, *call):
            future = self.executor.submit(*call)
            future.add_done_callback(self.done)
            return future

        def done(self, _):
            self.submitted += 1
            if self.submitted == 5 and not killed:
                killed.append(self.workers[0])
                os.kill(self.workers[0], signal.SIGKILL)

    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs=50
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        workers = [worker.process.pid for worker in cluster.workers.values()]
        executor = Watched(client.get_executor(pure=False), workers)
        there = distance_matrix(chains, **accuracy, executor=executor, **SETTING)
        deadline = time.monotonic() + 60
        while len(client.scheduler_info()["workers"]) < 1 and time.monotonic() < deadline:
            time.sleep(0.1)
    assert killed
    np.testing.assert_array_equal(there.value, distance_matrix(chains, **accuracy, **SETTING).value)
