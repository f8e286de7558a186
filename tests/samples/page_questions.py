"""What the page asks its server, asked without a browser."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit


def ask(url, path="/", method="GET", body=None, **headers):
    """Status, headers and body, the path sent as it is."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=20)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def question(name, camera=None, **values):
    """What the page sends to one of its callbacks: the one with an output of this name."""
    outputs = {"crystal": ["crystal.figure", "legend.children", "caption.children", "colouring.options"]}[name]
    inputs = {"shown": {"at": 0, "key": ""}, "colouring": "strain", "level": 50, "cut": "", "kept": 50, "look": "oblique"} | values
    properties = {"shown": "data"}
    return json.dumps(
        {
            "output": ".." + "...".join(outputs) + "..",
            "outputs": [dict(zip(("id", "property"), output.split("."), strict=True)) for output in outputs],
            "inputs": [{"id": key, "property": properties.get(key, "value"), "value": value} for key, value in inputs.items()],
            "state": [{"id": "camera", "property": "data", "value": camera}],
            "changedPropIds": ["shown.data"],
        }
    )


def surface(url, **values):
    status, _, body = ask(url, "/_dash-update-component", "POST", question("crystal", **values), Content_Type="application/json")
    return status, json.loads(body)["response"] if status == 200 else None
