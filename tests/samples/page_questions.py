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


def question(url, name, base="/", headers=None, camera=None, **values):
    """What the page sends to the callback that has an output of this name; None where the server does not tell its callbacks."""
    status, _, body = ask(url, f"{base}_dash-dependencies", **headers or {})
    if status != 200:
        return None
    callback = next(one for one in json.loads(body) if name in one["output"].strip(".").split("..."))
    chosen = {"shown": {"at": 0, "key": ""}, "colouring": "strain", "level": 50, "cut": "", "kept": 50, "look": "oblique"}
    chosen |= {"at-z": 50, "at-y": 50, "at-x": 50, "quantity": "strain", "over": "", "counts-scale": "linear"}
    chosen |= {"map": "auto", "unit": "1", "camera": camera, "drawn": {"at": -1}, **values}  # another picture was drawn before
    inputs, state = ([{**one, "value": chosen.get(one["id"])} for one in callback[kind]] for kind in ("inputs", "state"))
    outputs = [
        dict(zip(("id", "property"), output.split("."), strict=True)) for output in callback["output"].strip(".").split("...")
    ]
    is_single = not callback["output"].startswith("..")
    asked = {
        "output": callback["output"],
        "outputs": outputs[0] if is_single else outputs,
        "inputs": inputs,
        "state": state,
        "changedPropIds": ["shown.data"],
    }
    return json.dumps(asked)


def surface(url, base="/", Cookie="", **values):
    """Status of the answer to a page that wants a picture, and the answer, which has the surface and all else of the picture."""
    headers = {"Cookie": Cookie} if Cookie else {}
    asked = question(url, "crystal.figure", base, headers, **values)
    status, _, body = ask(url, f"{base}_dash-update-component", "POST", asked, Content_Type="application/json", **headers)
    return status, json.loads(body)["response"] if status == 200 else None
