"""Write and read groups with a NeXus class, data sets with units, nested settings, and JSON notes in HDF5 files.

Every data set has the attribute ``units``: "1" for a pure number, "" for text. The name of a number tells its units if it ends with
them, as ``volume_m3`` does. The value None is not written, and
a missing name is read as None. Volumes are compressed with gzip, which every HDF5 reader has.
"""

from __future__ import annotations

import atexit
import json
import re
from collections.abc import Mapping
from typing import Any

import h5py
import numpy as np

from braggshot.errors import FormatError
from braggshot.io.chunks import read_region
from braggshot.io.files import find_node

# Python ends by freeing what HDF5 holds. A thread that is stopped in the midst of reading would keep the lock of h5py, and the
# program would wait for it for ever; so the main thread takes the lock first.
atexit.register(h5py._objects.phil.acquire)

LARGE = 100_000  # number of values of an image from which it is compressed

# End of a name -> units that it tells; "voxel_size" is the one setting in metres without such an end.
_ENDINGS = {
    "_m": "m", "_m2": "m^2", "_m3": "m^3", "_rad": "rad", "_deg": "deg", "_ev": "eV", "_kev": "keV", "_s": "s", "voxel_size": "m",
}  # fmt: skip


def add_group(parent: h5py.Group, name: str, nx_class: str, **attributes: Any) -> h5py.Group:
    """Create a group of the NeXus class `nx_class`; its members keep the order in which they are written."""
    group = parent.create_group(name, track_order=True)
    group.attrs.update(NX_class=nx_class, **attributes)
    return group


def put(group: h5py.Group, name: str, value: Any, units: str | None = None, **attributes: Any) -> None:
    """Write a data set: text, a number, or an array of either; None writes no data set."""
    if value is None:
        return
    array = np.asarray(value)
    if array.dtype.kind in "OU":
        data = group.create_dataset(name, data=array.astype(object), dtype=h5py.string_dtype())
    else:
        # gzip beyond level 1 costs much time and saves little on counts and on objects that are mostly zero
        is_large = array.ndim >= 3 or array.size > LARGE
        compression = {"compression": "gzip", "compression_opts": 1, "shuffle": True} if is_large else {}
        data = group.create_dataset(name, data=array, **compression)
    data.attrs.update(units=units or ("" if array.dtype.kind in "OU" else _units_told(name)), **attributes)


def link(group: h5py.Group, name: str, node: h5py.Group | h5py.Dataset) -> None:
    """Add a soft link to a group or data set of the same file; the attribute `target` says where that is, as NeXus asks."""
    node.attrs["target"] = node.name
    group[name] = h5py.SoftLink(node.name)


def _units_told(name: str) -> str:
    return next((units for ending, units in _ENDINGS.items() if name.endswith(ending)), "1")


def put_tree(group: h5py.Group, tree: Mapping[str, Any], units: str | None = None) -> None:
    """Write nested settings as nested groups; a value that HDF5 cannot hold as an array of one type becomes JSON text."""
    for key, value in tree.items():
        name = str(key).replace("/", "_")
        if isinstance(value, Mapping):
            put_tree(add_group(group, name, "NXcollection"), value, units)
        elif _is_plain(value):
            put(group, name, value, units)
        else:
            put(group, name, to_json(value))


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return len({type(item) for item in value}) == 1 and isinstance(value[0], str | int | float)
    return isinstance(value, str | int | float | np.number | np.bool_ | np.ndarray)


def read_tree(group: Any) -> dict[str, Any]:
    """Read nested settings that `put_tree` wrote.

    Text and numbers become Python's own types, arrays of text become tuples, and other arrays stay arrays.
    """
    return {key: read_tree(item) if isinstance(item, h5py.Group) else read_value(item) for key, item in group.items()}


def get(group: Any, name: str, default: Any = None) -> Any:
    """Return the value of a data set, or `default` if there is no data set of that name."""
    if not isinstance(group, h5py.Group):
        return default
    item = find_node(group, name)
    return default if item is None else read_value(item)


def read_value(data: h5py.Dataset) -> Any:
    """Return the value of a data set as text, a tuple of texts, a number or an array.

    Raises
    ------
    FormatError : if `data` is a group, or the value is damaged or larger than it can be.
    """
    if not isinstance(data, h5py.Dataset):
        raise FormatError(f"{data.file.filename}: {data.name} is a group, expected a dataset.")
    value = read_region(data)
    if data.dtype.kind in "OS":
        text = np.asarray(value, object)
        words = [word.decode(errors="replace") if isinstance(word, bytes) else str(word) for word in text.ravel().tolist()]
        return tuple(words) if text.ndim else words[0]
    return value if data.shape else value.item()


def put_note(group: h5py.Group, name: str, content: Mapping[str, Any], description: str) -> None:
    """Write nested settings as JSON text in a group of the class NXnote; `read_note` reads them back exactly."""
    note = add_group(group, name, "NXnote")
    put(note, "type", "application/json")
    put(note, "description", description)
    put(note, "data", to_json(content))


def read_note(group: Any, name: str) -> dict[str, Any]:
    """Read the settings that `put_note` wrote; empty if there is no note."""
    if name not in group:
        return {}
    content = json.loads(str(read_value(group[name]["data"])))
    if not isinstance(content, dict):
        raise FormatError(f"{group.file.filename}: {group.name}/{name} holds no JSON object.")
    return content


def to_json(value: Any) -> str:
    """Return settings as JSON text; numpy values become numbers and lists, objects of other types become text."""
    text = json.dumps(value, default=lambda item: item.tolist() if hasattr(item, "tolist") else str(item), ensure_ascii=False)
    # Bytes of file names that are not UTF-8 cannot be written as letters.
    return re.sub("[\ud800-\udfff]", lambda found: f"\\u{ord(found[0]):04x}", text)
