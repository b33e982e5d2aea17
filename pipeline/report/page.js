"use strict";
// What the page draws and does. Tables are there without it; the numbers come from the element 'data'.
const data = JSON.parse(document.getElementById("data").textContent);
const runs = data.runs;
const SVG = new Set(["svg", "g", "path", "rect", "line", "circle", "text", "title"]);
const NONE = "#b8bdc6";
const LINES = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8c6bb1", "#a6761d"];
const PAIR = ["#0072B2", "#D55E00"];
const COSTS = "#D55E00", CARRIES = "#0072B2";
const KINDS = { same: "#0072B2", different: "#808080", opposite: "#D55E00" };

/** An element with attributes and children; texts become text, never markup. */
function make(tag, attributes = {}, ...children) {
  const isSvg = SVG.has(tag);
  const element = isSvg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null && value !== undefined) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}
const byId = (id) => document.getElementById(id);
const colourOf = (code) => (code < 0 ? NONE : data.colours[code % data.colours.length]);
const className = (code) => (code < 0 ? "none" : data.classes[code]);
const rounded = (value) => {
  const size = Math.abs(value);
  return value.toFixed(size >= 10 ? 1 : (size >= 0.99 && size < 1) || size < 0.01 ? 4 : 3);
};
const signed = (value) => (value > 0 ? "+" : "") + rounded(value);
const linkTo = (run) => make("a", { href: `#${rowId(run)}` }, run.name);
const rowId = (run) => `run-${runs.indexOf(run) + 1}`;

// ---- drawing

/** Curves in one frame. ``lines``: name, at [[x, y], ...] with null for a gap, colour, dash. */
function chart({ lines, x, y, xLabel, yLabel, xTicks, yTicks, toX = (v) => v, toY = (v) => v, xWords = String, width = 460, height = 340, label, left = 52, right = 10 }) {
  const bottom = xLabel ? 36 : 20, top = 8, inside = left === 0; // then the numbers stand on the lines
  const place = (value, [low, high], to, from, until) => from + ((to(value) - to(low)) / (to(high) - to(low) || 1)) * (until - from);
  const atX = (v) => place(v, x, toX, left, width - right), atY = (v) => place(v, y, toY, height - bottom, top);
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": label });
  for (const tick of xTicks) {
    svg.append(make("line", { class: "grid", x1: atX(tick), x2: atX(tick), y1: top, y2: height - bottom }));
    svg.append(make("text", { x: atX(tick), y: height - bottom + 14, "text-anchor": "middle" }, xWords(tick)));
  }
  for (const tick of yTicks) {
    svg.append(make("line", { class: "grid", x1: left, x2: width - right, y1: atY(tick), y2: atY(tick) }));
    svg.append(make("text", inside ? { x: 2, y: atY(tick) - 2 } : { x: left - 5, y: atY(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  for (const line of lines) {
    let d = "", open = false;
    for (const [px, py] of line.at) {
      if (py === null) { open = false; continue; }
      d += `${open ? "L" : "M"}${atX(px).toFixed(1)} ${atY(py).toFixed(1)}`;
      open = true;
    }
    svg.append(make("path", { d, fill: "none", stroke: line.colour, "stroke-width": line.width || 1.6, "stroke-dasharray": line.dash, "data-line": line.name }, make("title", {}, line.name)));
  }
  if (xLabel) svg.append(make("text", { x: (left + width - right) / 2, y: height - 4, "text-anchor": "middle", class: "soft" }, xLabel));
  if (yLabel) svg.append(make("text", { transform: `translate(12 ${(top + height - bottom) / 2}) rotate(-90)`, "text-anchor": "middle", class: "soft" }, yLabel));
  return svg;
}

function legend(entries) {
  return make("ul", { class: "legend" }, ...entries.map(([name, colour, note]) => make("li", {}, make("i", { style: `background:${colour}` }), note ? `${name}: ${note}` : name)));
}

/** A colour between those of ``stops`` (0 to 1), as [r, g, b]. */
function between(stops, share) {
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1), k = Math.min(Math.floor(at), stops.length - 2);
  return stops[k].map((low, c) => Math.round(low + (at - k) * (stops[k + 1][c] - low)));
}
const DIVERGING = [[33, 102, 172], [146, 197, 222], [247, 247, 247], [244, 165, 130], [178, 24, 43]];
const RISING = [[13, 29, 78], [87, 93, 109], [159, 150, 121], [253, 234, 69]];
const cosineColour = (value) => between(DIVERGING, (value + 1) / 2);
const css = ([r, g, b]) => `rgb(${r},${g},${b})`;

/** A small matrix of classes by classes. ``cells``: rows of numbers or null; ``share`` gives what the colour is of. */
function matrix(cells, share, stops, text, label, size) {
  const n = cells.length, names = size > 250, left = names ? 78 : 4, below = names ? 62 : 4, side = (size - left) / n;
  const svg = make("svg", { viewBox: `0 0 ${size} ${side * n + below}`, width: size, role: "img", "aria-label": label });
  cells.forEach((row, i) => row.forEach((value, j) => {
    const colour = value === null ? null : between(stops, share(value, row));
    const what = `${className(i)} and ${className(j)}: ${value === null ? "no pairs" : text(value)}`;
    svg.append(make("rect", { x: left + j * side, y: i * side, width: side, height: side, fill: colour ? css(colour) : NONE }, make("title", {}, what)));
    if (names && value !== null) {
      const bright = colour[0] * 0.299 + colour[1] * 0.587 + colour[2] * 0.114 > 140;
      svg.append(make("text", { x: left + (j + 0.5) * side, y: (i + 0.5) * side + 4, "text-anchor": "middle", style: `fill:${bright ? "#000" : "#fff"};font-size:${Math.min(11, side / 3)}px` }, text(value)));
    }
  }));
  if (names) data.classes.forEach((name, k) => {
    svg.append(make("text", { x: left - 5, y: (k + 0.5) * side + 4, "text-anchor": "end" }, name));
    svg.append(make("text", { transform: `translate(${left + (k + 0.6) * side} ${side * n + 8}) rotate(-40)`, "text-anchor": "end" }, name));
  });
  return svg;
}
const emotions = (run, size) => matrix(run.emotions, (v) => (v + 1) / 2, DIVERGING, (v) => v.toFixed(2), `mean cosines of emotions, ${run.name}`, size);
const confusion = (run, size) => matrix(run.confusion, (v, row) => v / Math.max(1, row.reduce((a, b) => a + b, 0)), RISING, (v) => String(Math.round(v)), `confusion, ${run.name}`, size);

function bar(stops, low, high, words) {
  const colours = [0, 0.25, 0.5, 0.75, 1].map((share) => css(between(stops, share))).join(",");
  return make("p", { class: "note" }, `${words} ${low} `, make("span", { class: "bar", style: `background:linear-gradient(to right,${colours})` }), ` ${high}`);
}

function similarity(run) {
  const cells = Uint8Array.from(atob(run.similarity.cells), (c) => c.charCodeAt(0)), label = run.similarity.label, n = label.length;
  const canvas = make("canvas", { width: n, height: n, role: "img", "aria-label": `similarity of frames, ${run.name}` });
  const context = canvas.getContext("2d"), image = context.createImageData(n, n);
  cells.forEach((cell, k) => {
    const edge = (k % n && label[k % n] !== label[(k % n) - 1]) || (k >= n && label[Math.floor(k / n)] !== label[Math.floor(k / n) - 1]);
    const colour = cosineColour(((cell << 24) >> 24) / 127);
    image.data.set([...(edge ? colour.map((c) => c * 0.6) : colour), 255], 4 * k);
  });
  context.putImageData(image, 0, 0);
  return canvas;
}

function points(run) {
  const size = 400, at = run.points.at, far = Math.max(...at.flat().map(Math.abs), 1e-6) * 1.05;
  const svg = make("svg", { viewBox: `0 0 ${size} ${size}`, width: size, role: "img", "aria-label": `principal components, ${run.name}` });
  svg.append(make("rect", { class: "axis", x: 0.5, y: 0.5, width: size - 1, height: size - 1 }));
  at.forEach(([x, y], k) => svg.append(make("circle", { cx: ((x / far + 1) / 2) * size, cy: ((1 - y / far) / 2) * size, r: 3, fill: colourOf(run.points.label[k]), "fill-opacity": 0.75 }, make("title", {}, className(run.points.label[k])))));
  return svg;
}

/** One strip of classes along the frames. */
function strip(line, codes, label) {
  const first = line.frames[0] - line.step / 2, width = line.frames.at(-1) + line.step / 2 - first;
  const svg = make("svg", { viewBox: `0 0 1000 22`, preserveAspectRatio: "none", height: 22, style: "height:22px", role: "img", "aria-label": label });
  let start = 0;
  for (let k = 1; k <= codes.length; k++) {
    const ends = k === codes.length || codes[k] !== codes[start] || line.frames[k] - line.frames[k - 1] > 1.5 * line.step;
    if (!ends) continue;
    const from = line.frames[start] - line.step / 2 - first, until = line.frames[k - 1] + line.step / 2 - first;
    svg.append(make("rect", { x: (1000 * from) / width, y: 0, width: (1000 * (until - from)) / width, height: 22, fill: colourOf(codes[start]) }, make("title", {}, `${className(codes[start])}, frames ${line.frames[start]} to ${line.frames[k - 1]}`)));
    start = k;
  }
  return svg;
}

/** Faces, the true strip and a predicted strip of each of ``some`` runs. */
function strips(number, some) {
  const line = data.timelines[number], first = line.frames[0] - line.step / 2, width = line.frames.at(-1) + line.step / 2 - first;
  const box = make("div", { class: "strips" });
  if (line.faces.length) {
    const room = 55 / Math.max(100, Math.min(innerWidth, 1325) - 230); // the share of the width that a face takes
    let last = -1;
    const apart = line.faces.filter(([frame]) => {
      const place = (0.94 * (frame - first)) / width;
      if (place < last + room) return false;
      last = place;
      return true;
    });
    const faces = apart.map(([frame, face]) => make("img", { src: address(face), alt: `frame ${frame}`, title: `frame ${frame}`, style: `left:${(3 + 94 * (frame - first) / width).toFixed(1)}%` }));
    box.append(make("span", {}, "faces"), make("div", { class: "faces" }, ...faces));
  }
  box.append(make("strong", {}, "true"), strip(line, line.truth, "true classes"));
  for (const run of some) if (run.timelines[number]) box.append(linkTo(run), strip(line, run.timelines[number].predicted, `predicted classes, ${run.name}`));
  return box;
}

function classLegend() {
  return legend([...data.classes.map((name, code) => [name, colourOf(code)]), ["none", NONE]]);
}

const CHORD = (cosine) => -Math.sqrt(Math.max(2 - 2 * cosine, 0));
const CHORD_TICKS = [1, 0.9999, 0.999, 0.99, 0.95, 0.8, 0.5, 0, -0.5, -1];

/** The cosines to the frame before, of two runs in one frame that is as high as the numbers are, below their strips. */
function nearness(box, number, some) {
  const line = data.timelines[number];
  const known = some.map((run, k) => [run, k]).filter(([run]) => run.timelines[number] && run.timelines[number].near.some((v) => v !== null));
  if (!known.length) return;
  const values = known.flatMap(([run]) => run.timelines[number].near).filter((v) => v !== null);
  const low = Math.min(...values), ticks = CHORD_TICKS.filter((tick) => tick >= low);
  const kept = ticks.filter((tick, k) => k === 0 || Math.abs(CHORD(tick) - CHORD(ticks[k - 1])) > (CHORD(1) - CHORD(low)) / 12);
  const lines = known.map(([run, k]) => ({ name: run.name, colour: PAIR[k], dash: k ? "5 3" : null, at: line.frames.map((frame, f) => [frame, run.timelines[number].near[f]]) }));
  const ends = [line.frames[0] - line.step / 2, line.frames.at(-1) + line.step / 2];
  const svg = chart({ lines, x: ends, y: [low, 1], toY: CHORD, xTicks: steps(ends[0], ends[1], 8), yTicks: kept, width: 1000, height: 190, left: 0, right: 0, label: `cosine to the frame before, ${known.map(([run]) => run.name).join(" and ")}` });
  box.append(make("span", {}, "cosine to the frame before"), svg);
  box.append(make("span", {}, ""), legend(known.map(([run, k]) => [run.name, PAIR[k]])));
}

/** Round numbers from low to high, about ``count`` of them. */
function steps(low, high, count) {
  const raw = (high - low) / count || 1, unit = 10 ** Math.floor(Math.log10(raw));
  const step = unit * [1, 2, 5, 10].find((k) => k * unit >= raw), found = [];
  for (let v = Math.ceil(low / step) * step; v <= high + 1e-9; v += step) found.push(Number(v.toFixed(6)));
  return found;
}

const address = (face) => `data:image/jpeg;base64,${data.faces[face]}`;
function thumb([face, label, called], kind, words) {
  const picture = face === null ? make("span", { class: "note" }, "(no picture)") : make("img", { src: address(face), alt: called, title: called });
  return make("figure", { class: kind }, picture, make("figcaption", {}, words));
}

// ---- the comparison of two runs

const seen = (run, what) => run[what] !== undefined && (!Array.isArray(run[what]) || run[what].length > 0);
function sideBySide(title, some, has, draw, note) {
  const known = some.filter(has);
  if (!known.length) return null;
  return make("section", {}, make("h3", {}, title), note ? make("p", { class: "note" }, note) : null, make("div", { class: "two" }, ...known.map((run) => make("figure", {}, make("figcaption", {}, linkTo(run)), draw(run)))));
}

function differenceTable(first, second) {
  const [i, j] = [runs.indexOf(first), runs.indexOf(second)];
  const rows = data.measures.filter((m) => first.values[m.name] || second.values[m.name]).map((measure) => {
    const cells = [first, second].map((run) => make("td", {}, run.values[measure.name] ? rounded(run.values[measure.name][0]) : ""));
    let found = data.differences[measure.name][i < j ? `${i},${j}` : `${j},${i}`], words = "", kind = null;
    if (found) {
      if (i > j) found = [-found[0], found[2] === null ? null : -found[2], found[1] === null ? null : -found[1]];
      const [gain, low, high] = found;
      words = signed(gain);
      if (low === null) words += " (no interval)";
      else {
        const beyond = low > 0 || high < 0, better = gain > 0 === (measure.better === "higher");
        words += ` (${signed(low)} to ${signed(high)}) ` + (beyond ? (better ? "better" : "worse") : "within noise");
        kind = beyond ? "better" : null;
      }
    }
    return make("tr", {}, make("th", { scope: "row", title: measure.says }, measure.title), ...cells, make("td", { class: kind }, words));
  });
  const head = ["measure", first.name, second.name, `${first.name} minus ${second.name}`];
  return make("div", { class: "wide" }, make("table", { class: "bare", id: "differences" }, make("thead", {}, make("tr", {}, ...head.map((t) => make("th", { scope: "col" }, t)))), make("tbody", {}, ...rows)));
}

function chosenTable(some) {
  const keys = Object.keys({ ...some[0].chosen, ...some[1].chosen });
  const words = (value) => (typeof value === "object" ? JSON.stringify(value) : String(value ?? ""));
  const differ = keys.filter((key) => words(some[0].chosen[key]) !== words(some[1].chosen[key]));
  if (!differ.length) return null;
  return make("p", { class: "note" }, "They differ in " + differ.map((key) => `${key} (${words(some[0].chosen[key])} and ${words(some[1].chosen[key])})`).join(", ") + ".");
}

function rocLines(some, kind, colours) {
  return some.filter((run) => run.roc[kind]).map((run, k) => ({ name: run.name, colour: colours(run, k), dash: run.baseline ? "4 3" : null, width: run.baseline ? 1.1 : 1.7, at: run.roc[kind].map((tpr, r) => [data.rates[r], tpr]) }));
}
const UNIT = [0, 0.2, 0.4, 0.6, 0.8, 1];
function roc(some, kind, colours) {
  const lines = rocLines(some, kind, colours);
  if (!lines.length) return null;
  const auc = `auc_same_${kind}`;
  lines.unshift({ name: "chance", colour: NONE, width: 1, at: [[0, 0], [1, 1]] });
  const svg = chart({ lines, x: [0, 1], y: [0, 1], xTicks: UNIT, yTicks: UNIT, xLabel: "false positive rate", yLabel: "true positive rate", label: `ROC, same against ${kind}` });
  const entries = lines.slice(1).map((line) => {
    const value = runs.find((run) => run.name === line.name).values[auc];
    return [line.name, line.colour, value ? `AUC ${rounded(value[0])}` : null];
  });
  return make("figure", {}, make("figcaption", {}, `same emotion against ${kind}`), svg, legend(entries));
}

function identification(some, colours) {
  const known = some.map((run, k) => ({ name: run.name, colour: colours(run, k), dash: run.baseline ? "4 3" : null, at: (run.identification || []).map((tpr, r) => [data.identificationRates[r], tpr]) })).filter((line) => line.at.length);
  if (!known.length) return null;
  const measured = Math.min(...known.flatMap((line) => line.at.filter(([, tpr]) => tpr !== null).map(([rate]) => rate)));
  if (!Number.isFinite(measured)) return null;
  const decades = [-5, -4, -3, -2, -1, 0], ticks = decades.filter((d, k) => d === 0 || decades[k + 1] > Math.log10(measured)).map((d) => 10 ** d);
  const x = [ticks[0], 1], rates = data.identificationRates.filter((rate) => rate >= x[0]);
  const lines = [{ name: "chance", colour: NONE, width: 1, at: rates.map((rate) => [rate, rate]) }, ...known.map((line) => ({ ...line, at: line.at.filter(([rate]) => rate >= x[0]) }))];
  const svg = chart({ lines, x, y: [0, 1], toX: Math.log10, xTicks: ticks, xWords: (rate) => `1e${Math.round(Math.log10(rate))}`.replace("1e0", "1"), yTicks: UNIT, xLabel: "share of impostor pairs above the threshold", yLabel: "share of genuine pairs", label: "identification rate" });
  const entries = known.map((line) => {
    const value = runs.find((run) => run.name === line.name).values["identification_at_1e-2"];
    return [line.name, line.colour, value ? `${rounded(value[0])} at 1e-2` : null];
  });
  const of = some.find((run) => run.pairs)?.pairs, count = (n) => n.toLocaleString("en");
  const who = of ? ` ${count(of.query_people)} people among ${count(of.distractor_people)} others: ${count(of.genuine_pairs)} genuine and ${count(of.impostor_pairs)} impostor pairs.` : "";
  return make("section", {}, make("h3", {}, "Identification rate"), make("p", { class: "note" }, `Pairs of pictures of one person against pairs of strangers. No run was trained on these people.${who} Dashed: baselines. The thin grey line is chance.`), svg, legend(entries));
}

function densities(run) {
  const middles = data.bins.slice(1).map((edge, k) => (edge + data.bins[k]) / 2);
  const lines = Object.entries(run.density).map(([kind, values]) => ({ name: kind, colour: KINDS[kind], dash: kind === "different" ? "4 3" : null, at: values.map((v, k) => [middles[k], v]) }));
  const high = Math.max(...Object.values(run.density).flat());
  return make("div", {}, chart({ lines, x: [-1, 1], y: [0, high], xTicks: [-1, -0.5, 0, 0.5, 1], yTicks: steps(0, high, 4), xLabel: "cosine", yLabel: "density", height: 240, label: `cosines of pairs, ${run.name}` }), legend(lines.map((line) => [line.name, line.colour])));
}

function nearest(run) {
  const box = make("div", {});
  run.nearest.forEach((row, k) => {
    const query = data.queries[k];
    box.append(make("div", { class: "thumbs" }, thumb(query, "query", className(query[1])), ...row.map((near) => thumb(near, near[1] === query[1] ? "hit" : "miss", `${className(near[1])} ${near[3].toFixed(2)}`))));
  });
  return box;
}

const worst = (run) => make("div", { class: "thumbs" }, ...run.worst.map((frame) => thumb(frame, "miss", `${className(frame[1])}, taken for ${className(frame[3])} (${frame[4].toFixed(2)})`)));

/** Pairs, each picture with what its places count for over it: white is the mean, red more, blue less. */
function attention(run) {
  const found = run.attention, most = Math.max(2, ...found.pairs.flatMap((pair) => pair.weights.flat(2).map((w) => w * pair.weights[0].length ** 2)));
  const picture = ([face, , called], weights, [high, wide]) => {
    if (face === null) return make("span", { class: "note" }, "(no picture)");
    const grid = weights.length, inside = `left:${50 * (1 - wide)}%;top:${50 * (1 - high)}%;width:${100 * wide}%;height:${100 * high}%`;
    const svg = make("svg", { viewBox: `0 0 ${grid} ${grid}`, preserveAspectRatio: "none", "shape-rendering": "crispEdges", style: inside, role: "img", "aria-label": `weights of places, ${called}` });
    weights.forEach((row, y) => row.forEach((weight, x) => {
      const times = weight * grid * grid, share = times <= 1 ? times / 2 : 0.5 + (times - 1) / (most - 1) / 2;
      svg.append(make("rect", { x, y, width: 1, height: 1, fill: css(between(DIVERGING, share)) }, make("title", {}, `${(100 * weight).toFixed(1)} %, ${times.toFixed(1)} times the mean`)));
    }));
    return make("span", { class: "places" }, make("img", { src: address(face), alt: called, title: called }), svg);
  };
  const box = make("div", { class: "thumbs" });
  for (const pair of found.pairs) {
    const said = pair.logit >= 0, name = (same) => (same ? "same" : "different"), right = said === pair.same;
    const words = `${right ? "right" : "wrong"}: ${name(pair.same)}${right ? "" : `, taken for ${name(said)}`} (${(1 / (1 + Math.exp(-pair.logit))).toFixed(3)})`;
    box.append(make("figure", { class: `pair ${right ? "hit" : "miss"}` }, ...pair.frames.map((frame, k) => picture(frame, pair.weights[k], pair.within[k])), make("figcaption", {}, words)));
  }
  return make("div", {}, box, bar(DIVERGING, "0", `${most.toFixed(0)} times the mean`, "Weight of a place:"), found.leftOut ? make("p", { class: "note" }, `${found.leftOut} pairs are left out, as their pictures cannot be read.`) : null);
}

/** What macro-F1 hangs on: bars of what it is without the videos of each group, and of what each confusion costs. */
function hangsOn(run) {
  const found = run.costs, unit = found.unit, width = 560, row = 32, most = 88; // characters of a line
  const groups = found.groups.map((of) => {
    const why = of.leave.length ? `no other group has ${of.leave.join(", ")}` : of.worst ? `mostly ${of.worst.true} taken for ${of.worst.predicted} (${Math.round(of.worst.frames)})` : "";
    return { name: of.group, value: of.without - found.macro_f1, words: `${rounded(of.without)} without its ${of.frames} ${unit}${why ? "; " + why : ""}`, says: of.videos.join(", ") };
  });
  const confusions = found.confusions.map((of) => ({ name: `${of.true} taken for ${of.predicted}`, value: of.gain, words: `${Math.round(of.frames)} ${unit} in ${of.in} groups, most in ${of.mostly_in[0][0]}`, says: of.mostly_in.map(([group, frames]) => `${group}: ${Math.round(frames)}`).join(", ") }));
  const box = make("div", {});
  for (const [rows, title, label] of [[groups, `Macro-F1 is ${rounded(found.macro_f1)}. Without the videos of a group it would be:`, "without each group"], [confusions, "If a confusion were right, macro-F1 would gain:", "cost of confusions"]]) {
    if (!rows.length) continue;
    const low = Math.min(0, ...rows.map((r) => r.value)), high = Math.max(0, ...rows.map((r) => r.value)), at = (v) => 4 + ((v - low) / (high - low || 1)) * (width - 70);
    const svg = make("svg", { viewBox: `0 0 ${width} ${row * rows.length}`, width, height: row * rows.length, role: "img", "aria-label": `${label}, ${run.name}` });
    rows.forEach((r, k) => {
      const y = row * k, short = `${r.name}: ${r.words}`, end = at(Math.max(r.value, 0));
      svg.append(make("text", { x: 4, y: y + 11 }, short.length > most ? short.slice(0, most - 1) + "…" : short));
      svg.append(make("rect", { x: Math.min(at(r.value), at(0)), y: y + 15, width: Math.max(1, Math.abs(at(r.value) - at(0))), height: 10, fill: r.value > 0 ? COSTS : CARRIES }, make("title", {}, `${short} (${r.says})`)));
      svg.append(make("text", { x: end + 5, y: y + 24, class: "soft" }, signed(r.value)));
      svg.append(make("line", { class: "axis", x1: at(0), x2: at(0), y1: y + 13, y2: y + 27 }));
    });
    box.append(make("p", { class: "note" }, title), svg);
  }
  return box;
}

function compare() {
  const some = ["first", "second"].map((id) => runs[Number(byId(id).value)]);
  const box = byId("compared"), pair = (run, k) => PAIR[k];
  const timelines = data.timelines.map((line, number) => {
    if (!some.some((run) => run.timelines[number])) return null;
    const box = strips(number, some);
    nearness(box, number, some);
    return make("section", {}, make("h3", {}, `Timeline of ${line.video}`), box);
  });
  const rocs = ["different", "opposite"].map((kind) => roc(some, kind, pair)).filter(Boolean);
  const parts = [
    chosenTable(some),
    differenceTable(...some),
    ...timelines,
    rocs.length ? make("section", {}, make("h3", {}, "ROC"), make("div", { class: "two" }, ...rocs)) : null,
    identification(some, pair),
    sideBySide("Cosines of pairs", some, (run) => Object.keys(run.density).length, densities),
    sideBySide("Similarity of frames", some, (run) => seen(run, "similarity"), similarity, "Frames by emotion, then video; blue is -1, white 0, red 1. Darker lines are between emotions."),
    sideBySide("Mean cosine of emotions", some, (run) => seen(run, "emotions"), (run) => emotions(run, 420)),
    sideBySide("Confusion: true class in rows, predicted in columns", some, (run) => seen(run, "confusion"), (run) => confusion(run, 420), "Numbers of frames; colour is the share of the true class."),
    sideBySide("What macro-F1 hangs on", some, (run) => seen(run, "costs"), hangsOn, "Orange: videos and confusions that cost. Blue: videos that the score would be lower without."),
    sideBySide("First two principal components", some, (run) => seen(run, "points"), points, "Each with its own axes."),
    sideBySide("Attention of pairs", some, (run) => run.attention && (run.attention.pairs.length || run.attention.leftOut), attention, "The weight of each place of both pictures: first the pairs that are most surely wrong, then some that are right. In brackets stands the probability of the same."),
    sideBySide("Nearest frames of other people", some, (run) => seen(run, "nearest"), nearest, "First a frame of each emotion, then those nearest to it, with their cosine. Green: the same emotion."),
    sideBySide("Most surely wrong frames, one a video", some, (run) => seen(run, "worst"), worst, "True class, then the predicted class with its share of the vote or its probability."),
  ].filter(Boolean);
  if (data.timelines.length) parts.splice(2, 0, classLegend());
  box.replaceChildren(...parts);
}

function fromAddress() {
  const given = /^#compare=([^&]*)&([^&]*)$/.exec(location.hash);
  const wanted = given ? given.slice(1).map(decodeURIComponent) : data.start;
  const found = wanted.map((name) => runs.findIndex((run) => run.name === name));
  if (found.some((k) => k < 0)) return;
  byId("first").value = found[0];
  byId("second").value = found[1];
  compare();
  if (given) byId("compare").scrollIntoView();
}
function picked() {
  const names = ["first", "second"].map((id) => encodeURIComponent(runs[Number(byId(id).value)].name));
  history.replaceState(null, "", `#compare=${names[0]}&${names[1]}`);
  compare();
}

// ---- all runs

function everyRun() {
  const colours = (run, k) => (run.baseline ? NONE : LINES[k % LINES.length]), parts = [];
  const rocs = ["different", "opposite"].map((kind) => roc(runs, kind, colours)).filter(Boolean);
  if (rocs.length) parts.push(make("h3", {}, "ROC of all runs"), make("p", { class: "note" }, "Dashed and grey: baselines."), make("div", { class: "two" }, ...rocs));
  const people = identification(runs, colours);
  if (people) parts.push(people);
  if (data.timelines.length) parts.push(make("h3", {}, "Predicted emotions of all runs"), classLegend());
  data.timelines.forEach((line, number) => parts.push(make("h4", {}, line.video), strips(number, runs)));
  for (const [what, draw, title, colourBar] of [
    ["emotions", emotions, "Mean cosine of emotions", () => bar(DIVERGING, "-1", "1", "Cosine")],
    ["confusion", confusion, "Confusion, true class in rows", () => bar(RISING, "0", "1", "Share of the true class")],
  ]) {
    const known = runs.filter((run) => seen(run, what));
    if (!known.length) continue;
    parts.push(make("h3", {}, title), colourBar(), make("p", { class: "note" }, `Classes in this order: ${data.classes.join(", ")}.`));
    parts.push(make("div", { class: "many" }, ...known.map((run) => make("figure", {}, draw(run, 185), make("figcaption", {}, linkTo(run))))));
  }
  if (data.faces_left_out) parts.push(make("p", { class: "note" }, `${data.faces_left_out} faces are left out, to keep this page small.`));
  byId("every").replaceChildren(...parts);
}

// ---- the table

const table = byId("results"), body = table.tBodies[0];
const notes = { scroll: byId("scrolls"), count: byId("count") };
function sortBy(column) {
  const head = table.tHead.rows[0].cells[column], better = head.dataset.better;
  const before = head.getAttribute("aria-sort"), start = better === "higher" ? "descending" : "ascending";
  const direction = before === null ? start : before === "ascending" ? "descending" : "ascending";
  for (const cell of table.tHead.rows[0].cells) cell.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", direction);
  const key = (row) => row.cells[column].dataset.v ?? "", sign = direction === "ascending" ? 1 : -1;
  const rows = [...body.rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === "" || y === "") return (x === "") - (y === ""); // what is not measured stands last
    return sign * (better === "text" ? x.localeCompare(y) : Number(x) - Number(y));
  });
  body.append(...rows);
}
function filter() {
  const words = byId("words").value.toLowerCase().split(/\s+/).filter(Boolean), kind = byId("kind").value, can = byId("can").value;
  let shown = 0;
  for (const row of body.rows) {
    const fits = words.every((word) => row.dataset.words.includes(word)) && (!kind || row.dataset.kind === kind) && (!can || row.dataset.does.split(" ").includes(can));
    row.hidden = !fits;
    shown += fits;
  }
  notes.count.textContent = `${shown} of ${body.rows.length} runs`;
}
function fits() {
  const box = table.parentElement;
  notes.scroll.hidden = box.scrollWidth <= box.clientWidth + 1;
}

table.tHead.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) sortBy(button.closest("th").cellIndex);
});
for (const id of ["words", "kind", "can"]) byId(id).addEventListener("input", filter);
byId("all").addEventListener("change", (event) => { table.classList.toggle("all", event.target.checked); fits(); });
for (const id of ["first", "second"]) byId(id).addEventListener("input", picked);
addEventListener("hashchange", () => {
  if (location.hash.startsWith("#compare=")) fromAddress();
  const row = location.hash.startsWith("#run-") && document.querySelector(location.hash);
  if (row && row.hidden) { // filtered away
    for (const id of ["words", "kind", "can"]) byId(id).value = "";
    filter();
    row.scrollIntoView();
  }
});
addEventListener("resize", fits);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));

filter();
fits();
everyRun();
fromAddress();
