"""Connect to a cluster of dask: processes on this machine, SLURM jobs, or a scheduler that runs already."""

from __future__ import annotations

import importlib.util
import logging
import os
import signal
import tempfile
from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import dask
from dask.system import CPU_COUNT
from distributed import Client, LocalCluster
from distributed.client import ClosedClientError
from distributed.security import Security
from distributed.system import MEMORY_LIMIT

from braggshot.errors import ClusterError, ConfigError

# Address and port of dask's web pages: they can be opened on this machine only, and port 0 means any free port.
_PRIVATE_ADDRESS = "127.0.0.1:0"
CONNECTION_ERRORS = (OSError, TimeoutError, CancelledError, ClosedClientError)
"""Errors that dask raises when a connection breaks; dask's own CommClosedError is covered, as it is a kind of OSError."""


@dataclass(frozen=True)
class ClusterConfig:
    """Settings of the cluster on which scans are phased.

    Parameters
    ----------
    workers : number of processes; None is one per core on this machine, one SLURM job on SLURM
    failures : number of times that a scan is phased again after its worker died; then the scan is given up
    patience : longest time to wait for a scheduler that does not answer [s]
    dashboard : serve dask's web pages about the work, if bokeh is installed
    slurm : options of dask_jobqueue.SLURMCluster, such as queue, cores, memory, walltime
    """

    workers: int | None = None
    failures: int = 3
    patience: float = 600.0
    dashboard: bool = True
    slurm: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError(f"cluster.workers must be at least 1, found {self.workers}.")


# Names of environment variables that are set for worker processes. They fix the number of threads of numerical libraries, and how
# idle threads wait.
_WORKER_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "OMP_WAIT_POLICY")


@contextmanager
def connect(where: str, workers: int | None = None, config: ClusterConfig | None = None) -> Iterator[Client]:
    """Connect to a cluster while a ``with`` block runs; processes and jobs that were started for it end with the block.

    Parameters
    ----------
    where : "local" starts processes on this machine, "slurm" asks for jobs, and an address such as "tcp://host:8786" finds a
        scheduler that runs already
    workers : number that replaces `ClusterConfig.workers`; without effect on a scheduler that runs already
    config : settings of the cluster; None takes the defaults

    Raises
    ------
    ConfigError : if `where` is neither a known name nor an address, or dask-jobqueue is not installed.
    ClusterError : if no scheduler answers.
    """
    config = config or ClusterConfig()
    config = config if workers is None else replace(config, workers=workers)
    if "://" in where:
        with _connect_to(where, config) as client:
            yield client
        return
    if where not in _CLUSTERS:
        raise ConfigError(f"no cluster {where!r}; give local, slurm, or the address of a scheduler such as tcp://host:8786.")
    with _kept_environment():
        with dask.config.set({"distributed.scheduler.allowed-failures": config.failures}):
            cluster = _CLUSTERS[where](config)
        try:
            with cluster, Client(cluster, set_as_default=False) as client:
                yield client
        finally:
            for value in vars(cluster).values():
                if isinstance(value, tempfile._TemporaryFileWrapper):
                    value.close()  # files with the keys for jobs; dask-jobqueue leaves them to the garbage collector


@contextmanager
def _kept_environment() -> Iterator[None]:
    """Restore the environment variables for threads in this process after a ``with`` block.

    While the block runs, dask also sets in this process the variables that are meant for its workers. If they stayed, a cluster
    that is started later would take its numbers of threads from them.
    """
    before = {name: os.environ[name] for name in _WORKER_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        for name in _WORKER_VARIABLES:
            os.environ.pop(name, None)
        os.environ.update(before)


def _local(config: ClusterConfig) -> Any:
    """Start worker processes on this machine.

    Connections are encrypted, because otherwise any user of the machine could send code to the workers.
    """
    n = config.workers or CPU_COUNT
    threads = str(max(1, CPU_COUNT // n))
    environment = {**dict.fromkeys(_WORKER_VARIABLES, threads), "OMP_WAIT_POLICY": "PASSIVE"}
    # Dask's default sets MALLOC_TRIM_THRESHOLD_, so that every array is a new mapping: workers took 1.8 times the processor time.
    # The profiler of dask, which looks at every thread a hundred times a second, is switched off.
    with dask.config.set({"distributed.nanny.pre-spawn-environ": environment, "distributed.worker.profile.enabled": False}):
        return LocalCluster(
            n_workers=n,
            threads_per_worker=1,  # one scan at a time in a process; its transforms use the threads set above
            memory_limit=MEMORY_LIMIT // n,
            host="127.0.0.1",
            protocol="tls://",
            security=Security.temporary(),
            dashboard_address=_PRIVATE_ADDRESS,
            scheduler_kwargs={"dashboard": config.dashboard},
            silence_logs=logging.ERROR,
        )


def _slurm(config: ClusterConfig) -> Any:
    """Start SLURM jobs with dask-jobqueue."""
    if not _installed("dask_jobqueue"):
        raise ConfigError("--cluster slurm needs dask-jobqueue: pip install 'braggshot[cluster]'.")
    # Importing dask-jobqueue makes Ctrl-C end this process at once, and nothing would be tidied up.
    on_interrupt = signal.getsignal(signal.SIGINT)
    from dask_jobqueue.slurm import SLURMCluster

    signal.signal(signal.SIGINT, on_interrupt)
    missing = [name for name in ("cores", "memory") if not config.slurm.get(name, dask.config.get(f"jobqueue.slurm.{name}"))]
    if missing:
        raise ConfigError(
            f"a SLURM job needs {' and '.join(missing)}: --set cluster.slurm.cores=8 --set cluster.slurm.memory=32GB."
        )
    # One scan per core; connections are encrypted with keys of this run, which jobs find in the home folder.
    pages = {"dashboard": config.dashboard, "dashboard_address": _PRIVATE_ADDRESS}
    options = {
        "security": True,
        "shared_temp_directory": str(Path.home()),
        "processes": config.slurm.get("cores"),
        **config.slurm,
        "scheduler_options": {**pages, **config.slurm.get("scheduler_options", {})},
        "job_script_prologue": [*_KEEP_MEMORY, *config.slurm.get("job_script_prologue", ())],
    }
    try:
        return SLURMCluster(n_workers=config.workers or 1, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"cluster.slurm does not fit dask_jobqueue.SLURMCluster: {error}") from error


_KEEP_MEMORY = ["""export DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON="{'MALLOC_TRIM_THRESHOLD_': None}\""""]
"""Line of a SLURM job script that keeps dask from setting MALLOC_TRIM_THRESHOLD_, a variable that makes workers slow."""


def _installed(module: str) -> bool:
    """Tell whether a module is installed."""
    return importlib.util.find_spec(module) is not None


_CLUSTERS = {"local": _local, "slurm": _slurm}
"""Functions that start a cluster, by the name of the cluster."""


@contextmanager
def _connect_to(address: str, config: ClusterConfig) -> Iterator[Client]:
    """Connect to a scheduler that runs already.

    If no scheduler answers at the address within 10 s, an error is raised. If the connection breaks later, dask tries to connect
    again for the time `patience` of the settings.
    """
    try:
        Client(address, timeout=min(10.0, config.patience), set_as_default=False).close()
    except (*CONNECTION_ERRORS, ValueError) as error:
        raise ClusterError(f"no scheduler answers at {address} ({error}); start one with `dask scheduler`.") from error
    with Client(address, timeout=config.patience, set_as_default=False) as client:
        yield client
