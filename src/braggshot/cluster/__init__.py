"""Many scans on many processes, over dask.distributed; the machines may be this one, a SLURM cluster or whatever a scheduler has.

::

    client: which scans are missing? --jobs, one per scan--> scheduler --> worker: read, phase, write <name>.cxi, ..., <name>.json
            network, once per worker                                        <-- the record, a few numbers

    connect   a client of processes here, of SLURM jobs, or of a scheduler that is there already
    network   the weights, once per worker
    jobs      one scan as a worker does it, and what says that it is done
    crew      jobs to records, whoever dies
    run       scans that stand alone: which are missing, and a report of each
    series    scans of one crystal, where each follows another one

Volumes never travel: workers read the scan and write the result, so both must see the files under the same absolute path.
``<name>.json`` is written last; a scan is done if it is there, made with the same settings, and the files it lists are there too.
So whatever dies, worker, scheduler or client, costs the scans that were being computed and no others.
"""

from __future__ import annotations

from braggshot.cluster.connect import ClusterConfig, connect
from braggshot.cluster.run import ClusterSettings, Report, reconstruct_many, resolve
from braggshot.cluster.series import ClusterSeriesSettings, resolve_series, run_series

__all__ = [
    "ClusterConfig",
    "ClusterSeriesSettings",
    "ClusterSettings",
    "Report",
    "connect",
    "reconstruct_many",
    "resolve",
    "resolve_series",
    "run_series",
]
