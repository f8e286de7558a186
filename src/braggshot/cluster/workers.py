"""Phase scans on the workers of a dask cluster and collect the reports, even if workers die or the scheduler is started again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from distributed import Client, Future, as_completed

from braggshot.cluster.connect import CONNECTION_ERRORS
from braggshot.cluster.jobs import Job, Record, failure_record, run_job
from braggshot.cluster.network import Network
from braggshot.errors import ClusterError
from braggshot.nn import weights
from braggshot.phasing.strategies import find_strategy
from braggshot.pipeline import Settings

# Largest number of successive rounds in which no scan is finished [1]; after one more such round the scheduler counts as gone. A
# round submits all scans that are still missing to the workers.
MAX_IDLE_ROUNDS = 5


class Workers:
    """Workers of a dask cluster that phase scans; each gets the network, if one is used, even if the worker starts late."""

    def __init__(self, client: Client, network: Network | None) -> None:
        self.client, self.network = client, network
        self._plugin: str | None = None

    def run(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Record]]:
        """Phase on the workers the scan of each job; yield the job and the report of its scan as soon as the job has ended.

        Raises
        ------
        ClusterError : if the scheduler is gone and does not come back.
        """
        missing = {job.name: job for job in jobs}
        idle = 0
        while missing:
            before = len(missing)
            for name, record in self._round(list(missing.values())):
                yield missing.pop(name), record
            if missing:
                self._plugin = None  # a new scheduler does not have the plugin
                idle = idle + 1 if len(missing) == before else 0
                self._wait_for_scheduler(idle)

    def _round(self, jobs: Sequence[Job]) -> Iterator[tuple[str, Record]]:
        """Submit jobs to the workers; yield the name and the report of each scan as soon as its job has ended.

        If the connection to the scheduler breaks, end early without an error.
        """
        token = uuid.uuid4().hex[:8]
        futures: dict[Future[Record], Job] = {}
        try:
            with suppress(*CONNECTION_ERRORS):
                self._send_network()
                for number, job in enumerate(jobs):
                    # Keys of one group let the scheduler hold scans back until any worker is free.
                    futures[self.client.submit(run_job, job, self._plugin, key=(f"braggshot-{token}", number), pure=False)] = job
            for future in as_completed(list(futures), loop=self.client.loop):
                job, record = futures.pop(future), None
                with suppress(*CONNECTION_ERRORS):
                    record = failure_record(job, future.exception()) if future.status == "error" else future.result()
                if record is not None:
                    yield job.name, record
        finally:
            if self.client.status == "running":
                with suppress(*CONNECTION_ERRORS):
                    self.client.cancel(list(futures))

    def _send_network(self) -> None:
        """Send the network to all workers, unless it was sent already."""
        if self.network is not None and self._plugin is None:
            plugin = f"braggshot-network-{uuid.uuid4().hex[:8]}"
            self.client.register_plugin(self.network, plugin)
            self._plugin = plugin

    def _wait_for_scheduler(self, idle: int) -> None:
        """Wait until dask has connected to the scheduler again; dask stops trying after `ClusterConfig.patience`.

        Parameters
        ----------
        idle : number of successive rounds in which no scan was finished; a round submits all scans that are still missing

        Raises
        ------
        ClusterError : if dask has stopped trying, or if `idle` is above `MAX_IDLE_ROUNDS`.
        """
        time.sleep(1)
        while self.client.status == "connecting":
            time.sleep(0.2)
        if self.client.status != "running" or idle > MAX_IDLE_ROUNDS:
            raise ClusterError("the scheduler is gone; start it and call again: what is done stays, and only the rest is computed.")

    def release(self) -> None:
        """Remove the network from the workers."""
        if self._plugin is not None and self.client.status == "running":
            with suppress(*CONNECTION_ERRORS):
                self.client.unregister_worker_plugin(self._plugin)


@contextmanager
def workers_of(client: Client, settings: Settings) -> Iterator[Workers]:
    """Yield the workers of a dask cluster, for a ``with`` block; after the block the workers drop their network.

    If the phasing method needs a network, its weights are read from their file once, in this process, and later sent to the
    workers.
    """
    network, name = None, settings.phasing.network
    if find_strategy(settings.phasing.method).needs_network:
        network = Network(*weights.read(weights.locate(name)), name)
    workers = Workers(client, network)
    try:
        yield workers
    finally:
        workers.release()
