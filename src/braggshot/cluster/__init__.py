"""Phase many scans in parallel, in worker processes of dask.distributed: on this machine, on SLURM, or at a running scheduler.

The client is the program that the user starts. A job is the work on one scan. A record is the report of one scan.

::

    client: which scans are missing? --jobs, one per scan--> scheduler --> worker: read, phase, write <name>.cxi, ..., <name>.json
            network, once per worker                                        <-- the record, a few numbers

connect   connect to a cluster of dask
network   hold the weights of the network, once per worker
jobs      phase one scan on a worker, and record that the scan is done
workers   run jobs and collect their records, even if workers or the scheduler die
run       phase scans that are independent of each other, and report each
series    phase scans of one crystal, where each uses the result of another scan

Volumes are never sent: workers read the scan and write the result, so both must see the files under the same absolute path.
For each scan ``<name>.json`` is written last. A scan counts as done if this file is there, was made with the same settings, and
all files that it lists exist. So the death of a worker, of the scheduler or of the client costs only the scans that were being
computed.
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
