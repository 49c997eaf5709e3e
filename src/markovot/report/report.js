// Draws the report from the data beside it. What somebody typed only ever becomes text, never HTML.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const chosen = { graph: data.order[0], neighbour: null };
  const rank = new Map(data.order.map((graph, place) => [graph, place]));
  const CONVERGED = 0;

  // --- small helpers
  function element(tag, attributes = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function shape(tag, attributes = {}, ...children) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  function unpack(text, Kind) {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    return new Kind(bytes.buffer);
  }

  // Plotly reads some HTML in text.
  const forPlotly = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const shortened = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
  const classOf = (graph) => data.classes[data.class[graph]][0];
  const title = (graph) => (data.classes.length > 1 ? `${data.names[graph]} (${classOf(graph)})` : data.names[graph]);
  const number = (value) => (Number.isFinite(value) ? Number(value).toPrecision(4) : "none");
  const small = (value) => (Number.isFinite(value) ? Number(value).toExponential(1) : "unbounded");

  // --- the matrix, of which the upper half is stored
  const rows = data.matrix.rows;
  const block = data.matrix.block;
  const values = unpack(data.matrix.value, Float32Array);
  const bounds = unpack(data.matrix.bound, Float32Array);
  const statuses = data.matrix.status === null ? null : unpack(data.matrix.status, Uint8Array);

  function entry(i, j) {
    const [low, high] = i < j ? [i, j] : [j, i];
    return low * rows - (low * (low - 1)) / 2 + high - low;
  }

  function pairText(i, j) {
    const at = entry(i, j);
    const code = statuses === null ? CONVERGED : statuses[at];
    const status = code === CONVERGED ? "" : `\nnot converged: ${data.statuses[code][0]}`;
    const distance = `distance ${number(values[at])}, error at most ${small(bounds[at])}${status}`;
    if (block > 1) return `mean of ${block} × ${block} pairs: ${distance}`;
    return `${title(data.order[i])}\n${title(data.order[j])}\n${distance}`;
  }

  // --- pictures
  // Named one by one: Plotly's own choice has one that sends the data to a server.
  const BUTTONS = [["toImage"], ["zoom2d", "pan2d"], ["zoomIn2d", "zoomOut2d", "resetScale2d"]];
  const QUIET = { displaylogo: false, responsive: true, modeBarButtons: BUTTONS };
  const PLAIN = { visible: false, showgrid: false, zeroline: false };

  function ring(graphs, size, color, width) {
    const places = graphs.map((graph) => data.map.place[graph]).filter((place) => place !== null);
    return {
      x: places.map((place) => place[0]), y: places.map((place) => place[1]), mode: "markers", hoverinfo: "skip",
      showlegend: false, marker: { symbol: "circle-open", size, color, line: { width } },
    };
  }

  function drawMap() {
    const shown = data.order.filter((graph) => data.map.place[graph] !== null);
    const size = Math.min(Math.max(2600 / shown.length, 5), 11);
    const traces = data.classes.map(([name, color, symbol], number) => {
      const members = shown.filter((graph) => data.class[graph] === number);
      return {
        x: members.map((graph) => data.map.place[graph][0]), y: members.map((graph) => data.map.place[graph][1]),
        customdata: members, mode: "markers", type: "scatter", hoverinfo: "none",
        name: forPlotly(`${shortened(name, 30)} (${members.length})`), showlegend: data.classes.length > 1,
        marker: { color, symbol, size, opacity: 0.85, line: { color: "white", width: 0.6 } },
      };
    });
    const layout = {
      margin: { l: 4, r: 4, t: 4, b: 4 }, hovermode: "closest", dragmode: "pan",
      xaxis: PLAIN, yaxis: { ...PLAIN, scaleanchor: "x" }, legend: { orientation: "h", y: -0.01, font: { size: 13 } },
    };
    const rings = [ring([], size + 5, "#222", 1.2), ring([chosen.graph], size + 9, "#000", 3)];
    Plotly.newPlot("map", [...traces, ...rings], layout, QUIET);
    byId("map").on("plotly_click", (event) => select(event.points[0].customdata));
    hover("map", (point) => title(point.customdata));
    const off = (100 * data.map.stress).toFixed(1);
    byId("stress").textContent = `Distances on the map are off by ${off} % (root mean square). Directions mean nothing.`;
  }

  function drawMatrix() {
    const matrix = Array.from({ length: rows }, (_, i) =>
      Float32Array.from({ length: rows }, (_unused, j) => values[entry(i, j)]));
    const classes = data.order.map((graph) => data.class[graph]);
    const starts = [];
    for (let i = 0; i < classes.length; i += 1) if (i === 0 || classes[i] !== classes[i - 1]) starts.push(i);
    const stops = [...starts.slice(1), classes.length];
    const inRows = (place) => place / block - 0.5;
    const named = data.classes.length > 1;
    const fitting = starts.map((start, k) => k).filter((k) => (stops[k] - starts[k]) / classes.length > 0.025);
    const axis = {
      showgrid: false, zeroline: false, ticks: "", constrain: "domain", range: [-0.5, rows - 0.5],
      tickvals: named ? fitting.map((k) => inRows((starts[k] + stops[k]) / 2)) : [],
      ticktext: named ? fitting.map((k) => forPlotly(shortened(data.classes[classes[starts[k]]][0], 22))) : [],
    };
    const borders = starts.slice(1).flatMap((start) => {
      const at = inRows(start);
      const line = { type: "line", line: { color: "white", width: 1.5 } };
      return [{ ...line, x0: at, x1: at, y0: -0.5, y1: rows - 0.5 }, { ...line, y0: at, y1: at, x0: -0.5, x1: rows - 0.5 }];
    });
    const hatched = hatching();
    const layout = {
      margin: { l: 10, r: 10, t: 32, b: 10 }, hovermode: "closest", dragmode: "pan", plot_bgcolor: "#bdbdbd",
      xaxis: { ...axis, showticklabels: false }, shapes: borders, images: hatched === null ? [] : [hatched],
      yaxis: { ...axis, automargin: true, range: [rows - 0.5, -0.5], scaleanchor: "x", ticklabelposition: "outside" },
    };
    const heat = {
      type: "heatmap", z: matrix, colorscale: "Viridis", reversescale: true, hoverinfo: "none", hoverongaps: true,
      colorbar: { title: { text: "distance", side: "right" }, thickness: 14, outlinewidth: 0 },
    };
    Plotly.newPlot("matrix", [heat], layout, QUIET);
    byId("matrix").on("plotly_click", (event) => {
      const { x, y } = event.points[0];
      select(data.order[y * block], block === 1 && x !== y ? data.order[x] : null);
    });
    hover("matrix", (point) => pairText(point.y, point.x));
    byId("marks").hidden = hatched === null;
    byId("matrix").borders = borders;
  }

  // One picture laid over the matrix, whose cells are striped where a pair did not converge.
  function hatching() {
    if (statuses === null) return null;
    const size = Math.max(3, Math.min(16, Math.floor(1600 / rows)));
    const canvas = element("canvas", { width: rows * size, height: rows * size });
    const context = canvas.getContext("2d");
    context.beginPath();
    for (let i = 0; i < rows; i += 1) {
      for (let j = 0; j < rows; j += 1) {
        const at = entry(i, j);
        if (statuses[at] === CONVERGED || Number.isNaN(values[at])) continue;
        for (const shift of [0, 0.5]) { // two stripes a cell, which run on into the next
          context.moveTo((j + shift) * size, (i + 1) * size);
          context.lineTo((j + 1) * size, (i + shift) * size);
          if (shift === 0) continue;
          context.moveTo(j * size, (i + shift) * size);
          context.lineTo((j + shift) * size, i * size);
        }
      }
    }
    for (const [color, width] of [["rgba(255, 255, 255, 0.8)", size / 4], ["#b3001b", size / 8]]) { // seen on any colour
      context.strokeStyle = color;
      context.lineWidth = Math.max(1, width);
      context.stroke();
    }
    return {
      source: canvas.toDataURL(), xref: "x", yref: "y", x: -0.5, y: -0.5, sizex: rows, sizey: rows, layer: "above",
      sizing: "stretch", xanchor: "left", yanchor: "top",
    };
  }

  function hover(id, text) {
    const tip = byId("tip");
    byId(id).on("plotly_hover", (event) => {
      tip.textContent = text(event.points[0]);
      tip.hidden = false;
      const { clientX, clientY } = event.event;
      tip.style.left = `${Math.min(clientX + 14, window.innerWidth - tip.offsetWidth - 8)}px`;
      tip.style.top = `${Math.min(clientY + 14, window.innerHeight - tip.offsetHeight - 8)}px`;
    });
    byId(id).on("plotly_unhover", () => { tip.hidden = true; });
  }

  // --- one graph and its neighbours
  function select(graph, neighbour = null) {
    const near = data.neighbours[graph];
    chosen.graph = graph;
    chosen.neighbour = neighbour ?? (near.length ? near[0][0] : null);
    byId("graph").value = String(graph);
    const states = data.drawings === null ? "" : `, ${data.drawings.sizes[graph]} states`;
    byId("chosen").textContent = `${title(graph)}${states}`;
    listNeighbours(graph, near);
    mark(graph, near);
    showPair();
  }

  function listNeighbours(graph, near) {
    byId("neighbours").tBodies[0].replaceChildren(...near.map(([other, value, bound, code, tied]) => {
      const shown = element("button", { type: "button", "data-graph": other }, `${tied ? "≈ " : ""}${data.names[other]}`);
      shown.addEventListener("click", () => { chosen.neighbour = other; showPair(); });
      const go = element("button", { type: "button", "aria-label": `Go to ${data.names[other]}` }, "go");
      go.addEventListener("click", () => select(other));
      const dot = element("span", { class: "dot", style: `background:${data.classes[data.class[other]][1]}` });
      const wrong = code === CONVERGED ? [] : [element("span", { class: "bad", title: data.statuses[code][1] }, " not converged")];
      return element("tr", code === CONVERGED ? {} : { class: "wrong" },
        element("td", {}, shown), element("td", {}, dot, classOf(other)), element("td", {}, number(value)),
        element("td", {}, small(bound ?? NaN), ...wrong), element("td", {}, go));
    }));
    byId("ties").hidden = !near.some((row) => row[4]);
    byId("neighbours").hidden = near.length === 0;
  }

  function mark(graph, near) {
    const count = data.classes.length;
    const places = [near.map((row) => row[0]), [graph]].map((graphs) =>
      graphs.map((one) => data.map.place[one]).filter((place) => place !== null));
    Plotly.restyle("map", {
      x: places.map((some) => some.map((place) => place[0])), y: places.map((some) => some.map((place) => place[1])),
    }, [count, count + 1]);
    const row = Math.floor(rank.get(graph) / block);
    const frame = { type: "rect", line: { color: "#000", width: 1 }, y0: row - 0.5, y1: row + 0.5, x0: -0.5, x1: rows - 0.5 };
    Plotly.relayout("matrix", { shapes: [...byId("matrix").borders, frame] });
  }

  function showPair() {
    const { graph, neighbour } = chosen;
    for (const button of byId("neighbours").querySelectorAll("button[data-graph]")) {
      button.setAttribute("aria-pressed", String(Number(button.dataset.graph) === neighbour));
    }
    byId("alignment").replaceChildren();
    byId("key").hidden = byId("lines").hidden = true;
    byId("remark").textContent = "";
    if (neighbour === null) {
      byId("pair").textContent = "";
      byId("remark").textContent = "This graph has no distance to any other.";
      return;
    }
    byId("pair").textContent = `${title(graph)} and ${title(neighbour)}`;
    const remarks = [];
    if (block === 1) {
      const [, , distance] = pairText(rank.get(graph), rank.get(neighbour)).split("\n");
      remarks.push(`${distance[0].toUpperCase()}${distance.slice(1)}.`);
    }
    const drawings = data.drawings;
    const pair = drawings === null ? undefined : drawings.pairs[graph < neighbour ? `${graph}-${neighbour}` : `${neighbour}-${graph}`];
    if (pair !== undefined) {
      if (pair.status !== CONVERGED) remarks.push(`The alignment did not converge: ${data.statuses[pair.status][0]}.`);
      drawPair(graph, neighbour, pair);
    } else if (drawings !== null) {
      const large = Math.max(drawings.sizes[graph], drawings.sizes[neighbour]) > drawings.max_states;
      remarks.push(large
        ? `The alignment is not drawn: a graph has more than ${drawings.max_states} states.`
        : `The page holds the alignments of each graph with its ${data.k} nearest only.`);
    }
    byId("remark").textContent = remarks.join(" ");
  }

  // --- the alignment
  function placed(left, right, pair, forwards) {
    const [a, b, c, d] = pair.turn; // by which the second graph turns towards the first; transposed, the reverse
    const turned = right.place.map(([x, y]) => (forwards ? [x * a + y * c, x * b + y * d] : [x * a + y * b, x * c + y * d]));
    const span = (points, axis) => [Math.min(...points.map((p) => p[axis])), Math.max(...points.map((p) => p[axis]))];
    const sides = [left.place, turned].map((points) => ({ points, x: span(points, 0), y: span(points, 1) }));
    const high = Math.max(...sides.map((side) => side.y[1] - side.y[0]));
    const gap = Math.max(3, 0.7 * high);
    return sides.map(({ points, x, y }, side) => points.map(([px, py]) => [
      side === 0 ? px - x[1] - gap / 2 : px - x[0] + gap / 2,
      (y[0] + y[1]) / 2 - py, // pictures count downwards
    ]));
  }

  const isDark = (color) => {
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(color.slice(at, at + 2), 16));
    return 0.299 * r + 0.587 * g + 0.114 * b < 150;
  };

  function drawPair(graph, neighbour, pair) {
    const { graphs, states } = data.drawings;
    const forwards = graph < neighbour;
    const sides = [graphs[graph], graphs[neighbour]];
    const places = placed(sides[0], sides[1], pair, forwards);
    const lines = pair.lines.map(([i, j, share]) => (forwards ? [i, j, share] : [j, i, share]))
      .sort((one, other) => Math.abs(one[2]) - Math.abs(other[2]));
    const heaviest = lines.length ? Math.abs(lines[lines.length - 1][2]) : 1;
    const text = (side, state) => states[sides[side].states[state]][0];
    const label = `Alignment of ${title(graph)}, on the left, and ${title(neighbour)}: ${lines.length} lines.`;
    const drawing = shape("svg", { role: "img", "aria-label": label, viewBox: frame(places.flat()) });
    for (const [i, j, share] of lines) {
      const part = Math.abs(share) / heaviest;
      const [[x1, y1], [x2, y2]] = [places[0][i], places[1][j]];
      const about = `${text(0, i)} (${i}) goes with ${text(1, j)} (${j}): ${(Math.abs(share) / 10).toPrecision(2)} % of the alignment`;
      drawing.append(shape("line", {
        class: share < 0 ? "aligned different" : "aligned", x1, y1, x2, y2, "stroke-width": Math.max(6 * part, 0.6),
        "stroke-opacity": 0.45 + 0.4 * part,
      }, shape("title", {}, about)));
    }
    sides.forEach((side, which) => {
      for (const [i, j] of side.bonds) {
        const [[x1, y1], [x2, y2]] = [places[which][i], places[which][j]];
        drawing.append(shape("line", { class: "bond", x1, y1, x2, y2 }));
      }
      side.states.forEach((state, i) => {
        const [name, color] = states[state];
        const [x, y] = places[which][i];
        drawing.append(shape("circle", { cx: x, cy: y, r: 0.36, fill: color }, shape("title", {}, `${name} (${i})`)));
        const written = shortened(name, 4);
        const size = [0.5, 0.5, 0.42, 0.3, 0.24][written.length];
        drawing.append(shape("text", { x, y, "font-size": size, fill: isDark(color) ? "#fff" : "#111" }, written));
      });
    });
    byId("alignment").replaceChildren(drawing);
    byId("key").hidden = byId("lines").hidden = false;
    byId("lines").querySelector("tbody").replaceChildren(...[...lines].reverse().map(([i, j, share]) => element("tr", {},
      element("td", {}, `${text(0, i)} (${i})`), element("td", {}, `${text(1, j)} (${j})`),
      element("td", {}, `${(Math.abs(share) / 10).toPrecision(2)} %`))));
  }

  function frame(points) {
    const [xs, ys] = [0, 1].map((axis) => points.map((point) => point[axis]));
    const [left, top] = [Math.min(...xs) - 0.6, Math.min(...ys) - 0.6];
    return [left, top, Math.max(...xs) + 0.6 - left, Math.max(...ys) + 0.6 - top].join(" ");
  }

  // --- choosing without a mouse
  function step(by) {
    const place = (rank.get(chosen.graph) + by + data.order.length) % data.order.length;
    select(data.order[place]);
  }

  function listen() {
    const list = byId("graph");
    data.classes.forEach(([name], number) => {
      const members = data.order.filter((graph) => data.class[graph] === number).sort((one, other) => one - other);
      list.append(element("optgroup", { label: name },
        ...members.map((graph) => element("option", { value: graph }, data.names[graph]))));
    });
    list.addEventListener("change", () => select(Number(list.value)));
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    const steps = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };
    for (const id of ["map", "matrix"]) {
      byId(id).setAttribute("aria-label", "A picture; arrow keys go from graph to graph, in the order of the matrix");
      byId(id).addEventListener("keydown", (event) => {
        if (!(event.key in steps)) return;
        event.preventDefault();
        step(steps[event.key]);
      });
    }
  }

  listen();
  drawMap();
  drawMatrix();
  select(chosen.graph);
})();
