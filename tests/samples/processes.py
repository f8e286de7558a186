"""Workers and schedulers as processes that tests stop, kill and start again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import torch


@contextmanager
def one_thread():
    """As a worker computes; with other threads transforms round otherwise."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def contents(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def stopped_at_work(client, folder, names):
    """Process of a worker, stopped in the midst of scans, and their names; it cannot finish between this look and a kill."""
    pids = client.run(os.getpid)
    for _ in range(100):
        victim, keys = next(((address, keys) for address, keys in client.processing().items() if keys), (None, ()))
        if victim is None:  # between two scans
            time.sleep(0.01)
            continue
        os.kill(pids[victim], signal.SIGSTOP)
        unfinished = {names[key[1]] for key in keys} - {path.stem for path in folder.glob("*.json")}
        if unfinished:
            return pids[victim], unfinished
        os.kill(pids[victim], signal.SIGCONT)
    raise AssertionError("the workers were never caught at work")


def started(*arguments):
    return subprocess.Popen([sys.executable, "-m", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def scheduler_and_worker(file, port=0):
    """As a facility runs them; a scheduler that is killed leaves its file."""
    file.unlink(missing_ok=True)
    arguments = ["--host", "127.0.0.1", "--port", str(port), "--no-dashboard", "--scheduler-file", str(file)]
    processes = [started("distributed.cli.dask_scheduler", *arguments)]
    deadline = time.monotonic() + 60
    while not file.exists():
        assert processes[0].poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    processes.append(
        started("distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1", "--no-dashboard", "--no-nanny")
    )
    try:
        yield json.loads(file.read_text())["address"], processes[0]
    finally:
        for process in processes:
            process.kill()
            process.wait()
