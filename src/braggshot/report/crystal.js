// Decompress plotly.js and the figure, and draw the crystal; say why where that cannot be.
(async () => {
  const unpack = async name => {
    const bytes = Uint8Array.from(atob(document.getElementById(name).textContent), letter => letter.charCodeAt(0));
    return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
  };
  const place = document.getElementById("crystal"), note = document.getElementById("crystal-note");
  const probe = document.createElement("canvas");
  if (!window.DecompressionStream || !(probe.getContext("webgl2") || probe.getContext("webgl"))) {
    note.textContent = "This browser cannot draw the crystal in space (WebGL, DecompressionStream); the pictures stand for it.";
    return;
  }
  const library = document.createElement("script");
  library.textContent = await unpack("plotly-js");
  document.head.append(library);
  const figure = JSON.parse(await unpack("crystal-figure"));
  place.hidden = false;
  const buttons = {displaylogo: false, responsive: true, modeBarButtons: [["toImage", "resetCameraDefault3d"]]};
  await Plotly.newPlot(place, figure.data, figure.layout, buttons);
  note.textContent = "Drag to turn, roll to zoom; the menu colours it, the slider cuts it open.";
})();
