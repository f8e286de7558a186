"""A simulated detector for a RunEngine, as its users write them."""

from __future__ import annotations

import h5py


class Camera:
    """A detector that appends each frame to an HDF5 file, and says so by stream documents."""

    name, parent = "eiger", None

    def __init__(self, path, images):
        self.path, self.images, self.told = path, images, 0

    def stage(self):
        self.file = h5py.File(self.path, "w", libver="latest", locking=False)
        shape = self.images.shape[1:]
        self.data = self.file.create_dataset("entry/data", (0, *shape), "u2", maxshape=(None, *shape), chunks=(1, *shape))
        self.file.swmr_mode = True
        return [self]

    def unstage(self):
        self.file.close()
        return [self]

    def trigger(self):
        from ophyd.status import Status

        count = self.data.shape[0]
        self.data.resize(count + 1, axis=0)
        self.data[count] = self.images[count]
        self.data.flush()
        status = Status()
        status.set_finished()
        return status

    def read(self):
        return {}

    def describe(self):
        shape = [1, *self.images.shape[1:]]
        image = {"source": "sim", "shape": shape, "dtype": "array", "dtype_numpy": "<u2", "external": "STREAM:"}
        return {"eiger": image}

    def read_configuration(self):
        return {}

    def describe_configuration(self):
        return {}

    def collect_asset_docs(self, index=None):
        if not self.told:
            where = {"uri": self.path.as_uri(), "mimetype": "application/x-hdf5", "parameters": {"dataset": "/entry/data"}}
            yield "stream_resource", {"uid": self.path.name, "data_key": "eiger", **where}
        first, self.told = self.told, self.data.shape[0]
        numbers = {"start": 0, "stop": 0}  # the RunEngine fills them in
        indices = {"start": first, "stop": self.told}
        where = {"uid": f"{self.path.name}/{first}", "stream_resource": self.path.name, "descriptor": ""}
        yield "stream_datum", {**where, "indices": indices, "seq_nums": numbers}
