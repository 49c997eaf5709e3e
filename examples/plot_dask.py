"""
A distance matrix on several machines
=====================================

``executor=`` takes anything that submits work in the style of ``concurrent.futures``. Here it is a Dask cluster of
two processes on this machine; a scheduler on another machine would be named by its address instead.
"""

import time

import numpy
from dask.distributed import Client, LocalCluster
from matplotlib import pyplot

from markovot import costs
from markovot.datasets import load_mutag
from markovot.pairwise import distance_matrix

chains = load_mutag(laziness=0.1).chains[:80]
setting = {"cost": costs.ZeroOne(), "delta": 0.2, "epsilon": 0.01, "progress": False}


def on_a_cluster():
    """All distances, solved by two worker processes, and when each was at work."""
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="ERROR") as cluster,
        Client(cluster) as client,
    ):
        executor = client.get_executor(pure=False)
        client.run(distance_matrix, chains[:2], **setting)  # every worker loads markovot
        client.get_task_stream()  # from now on it is recorded
        start = time.time()
        found = distance_matrix(chains, executor=executor, **setting)
        stories = client.get_task_stream(start=start)
        spans = [
            (story["worker"], part["start"] - start, part["stop"] - start)
            for story in stories
            for part in story["startstops"]
            if part["action"] == "compute"
        ]
        return found, spans


if __name__ == "__main__":  # worker processes import this file
    found, spans = on_a_cluster()
    alone = distance_matrix(chains, **setting)
    print("the same bits as here:", numpy.array_equal(found.value, alone.value))

    workers = sorted({worker for worker, _, _ in spans})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    left.imshow(found.value, cmap="viridis_r")
    left.set(title="80 molecules", xlabel="molecule", ylabel="molecule")
    for worker, begin, end in spans:
        right.barh(workers.index(worker), end - begin, left=begin, height=0.6, edgecolor="white", color="tab:blue")
    right.set(title="blocks of pairs", xlabel="seconds", yticks=range(len(workers)))
    right.set_yticklabels([f"worker {number + 1}" for number in range(len(workers))])
    pyplot.show()

# %%
# A worker may die on the way: its blocks are solved again, elsewhere. With ``checkpoint=`` the caller may die too,
# and the same call goes on where it stopped.
