"""Hold the scripts that the browser runs by itself: say what is drawn, keep the view in the address, heed clicks, link cameras."""

from __future__ import annotations

import json

from braggshot.viewer.choices import DEFAULTS

SEEN = """drawn => {
    const done = () => { clearTimeout(late); dash_clientside.set_props("seen", {data: {at: drawn.at, key: drawn.key}}); };
    const late = setTimeout(done, document.hidden ? 0 : 2000);
    if (!document.hidden) requestAnimationFrame(() => requestAnimationFrame(done));
}"""
"""Script that says what is shown, when the screen shows it. A hidden page draws nothing, so it says so once it has everything.

What is seen asks for the rest of a first picture, whose answer changes what is drawn. Dash allows no such circle of outputs.
"""

VALUES = {**DEFAULTS, "quantity": "strain", "over": "", "counts-scale": "linear"}
"""Controls whose values are kept in the address -> value that the address leaves out."""
STORED = ("camera", "picked")  # stores of the page that are kept in the address, as JSON
_NUMBERS = ("level", "kept", "at-z", "at-y", "at-x")  # controls whose values are numbers

ADDRESS = f"""(...given) => {{
    const usual = {json.dumps(VALUES)}, numbers = {json.dumps(_NUMBERS)}, stored = {json.dumps(STORED)};
    const set = (name, change) => dash_clientside.set_props(name, change);
    if (!window.viewRestored) {{
        window.viewRestored = Date.now();
        const said = new URLSearchParams(location.search);
        for (const name of Object.keys(usual))
            if (said.has(name)) set(name, {{value: numbers.includes(name) ? Number(said.get(name)) : said.get(name)}});
        for (const name of stored)
            try {{ if (said.has(name)) set(name, {{data: JSON.parse(said.get(name))}}); }} catch {{ /* not a view */ }}
        if (said.has("scan")) set("scan", {{value: Number(said.get("scan"))}});
        if (said.size) return;
    }}
    const values = given.slice(0, Object.keys(usual).length), [camera, picked, scan, newest] = given.slice(values.length);
    const said = new URLSearchParams();
    Object.entries(usual).forEach(([name, first], n) => {{
        if (values[n] !== first && values[n] !== undefined && values[n] !== null) said.set(name, values[n]);
    }});
    const short = (_, value) => typeof value === "number" ? Number(value.toPrecision(5)) : value;
    if (camera) said.set("camera", JSON.stringify(camera, short));
    if (picked && picked.length) said.set("picked", JSON.stringify(picked, short));
    if (Number(scan) < Number(newest)) said.set("scan", scan);
    history.replaceState(null, "", location.pathname + (said.size ? `?${{said}}` : ""));
    for (const link of document.querySelectorAll("a.download")) link.href = `download/${{link.dataset.kind}}?${{said}}`;
}}"""
"""Script that restores the view that the address names, and from then on keeps the address that of the view."""

FORGET_RANGE = """() => Date.now() - (window.viewRestored || Date.now()) > 1500
    ? [null, null] : [dash_clientside.no_update, dash_clientside.no_update]"""
"""Script that empties the range of colours when another quantity or unit is chosen, but not while a view is restored."""

CLICKED = """click => {
    if (!window.press) {
        const end = () => { window.press.isHeld = false; };
        window.press = {isHeld: false, isTurn: false};
        document.addEventListener("pointerdown", at => { window.press = {isHeld: true, isTurn: false, at}; }, true);
        document.addEventListener("pointermove", now => {
            const {at, isHeld} = window.press;
            if (isHeld && Math.hypot(now.clientX - at.clientX, now.clientY - at.clientY) > 4) window.press.isTurn = true;
        }, true);
        document.addEventListener("pointerup", end, true);
        document.addEventListener("pointercancel", end, true);
    }
    if (!click) return dash_clientside.no_update;
    return new Promise(then => {
        const answer = () => then(window.press.isTurn ? dash_clientside.no_update : click);
        const wait = () => window.press.isHeld ? setTimeout(wait, 20) : answer();
        wait();
    });
}"""
"""Script that passes on a click on the crystal. Plotly takes every press on its surface for a click, also one that turns it."""

LINK_CAMERAS = """(one, other) => {
    const moved = dash_clientside.callback_context.triggered_id, to = moved === "crystal" ? "crystal-b" : "crystal";
    const change = moved === "crystal" ? one : other;
    const camera = change && change["scene.camera"], graph = document.querySelector(`#${to} .js-plotly-plot`);
    if (!camera || !graph || !graph.layout || !graph.layout.scene) return;
    const eye = place => JSON.stringify([place.eye, place.up, place.center]);
    if (eye(graph.layout.scene.camera) !== eye(camera)) Plotly.relayout(graph, {"scene.camera": camera});
}"""
"""Script that turns the other one of two crystals as the user has turned one."""
