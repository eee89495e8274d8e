// The slice browser: slices, masks and scores on canvases. One module with two homes: in notebooks anywidget calls
// `render`, and a page that holds its slices calls `mount`. Pixels come once per slice; everything else happens here.

const AREA = "area", OUTLINE = "outline", PROBABILITY = "probability", ERROR = "errors", GATE = "gate";
const EVERY = "all slices", LESION = "with lesion", NO_LESION = "without lesion";
const BY_HAND = -1;
const SIDE = 512; // pixels of a panel's longer side
const KEPT = 96e6; // bytes of slices that stay loaded
const AHEAD = 2; // slices asked for before they are needed, at a time: one that is needed must not wait for many
const REST_MS = 300; // after which the kernel is told where one stopped
const range = n => [...Array(n).keys()];

// ---- arithmetic: arrays in, arrays out

export async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// A slice's bytes as packing.py packs them: stored pictures, the truth in bits, networks in per cent.
export function unpack(bytes, { height, width, stored, networks }) {
  const size = height * width, bits = stored * size, rest = bits + Math.ceil(size / 8);
  const truth = new Uint8Array(size);
  for (let i = 0; i < size; i++) truth[i] = (bytes[bits + (i >> 3)] >> (7 - (i & 7))) & 1;
  const picture = (start, k) => bytes.subarray(start + k * size, start + (k + 1) * size);
  return {
    height, width, truth,
    pictures: range(stored).map(k => picture(0, k)),
    percent: range(networks).map(k => picture(rest, k)),
  };
}

// Pixels above a threshold in whole per cent: what is stored is the number of whole per cents below a probability.
export function above(percent, threshold) {
  const mask = new Uint8Array(percent.length);
  for (let i = 0; i < mask.length; i++) mask[i] = percent[i] > threshold ? 1 : 0;
  return mask;
}

export function counts(mask, truth) {
  let tp = 0, found = 0, lesion = 0;
  for (let i = 0; i < mask.length; i++) {
    found += mask[i];
    lesion += truth[i];
    tp += mask[i] & truth[i];
  }
  return { tp, fp: found - tp, fn: lesion - tp, found, lesion };
}

export const dice = ({ tp, fp, fn }) => (2 * tp) / (2 * tp + fp + fn);
export const iou = ({ tp, fp, fn }) => tp / (tp + fp + fn);

// The border of a mask as lines [x0, y0, x1, y1, ...] between pixels: no pixel is covered, however thin the lesion.
export function border(mask, height, width) {
  const at = (x, y) => x >= 0 && y >= 0 && x < width && y < height && mask[y * width + x] === 1;
  const lines = [];
  for (let y = 0; y <= height; y++)
    for (let x = 0, from = -1; x <= width; x++) {
      const edge = x < width && at(x, y - 1) !== at(x, y);
      if (edge && from < 0) from = x;
      if (!edge && from >= 0) { lines.push(from, y, x, y); from = -1; }
    }
  for (let x = 0; x <= width; x++)
    for (let y = 0, from = -1; y <= height; y++) {
      const edge = y < height && at(x - 1, y) !== at(x, y);
      if (edge && from < 0) from = y;
      if (!edge && from >= 0) { lines.push(x, from, x, y); from = -1; }
    }
  return lines;
}

// Values in a window as grey levels; `scale` [slope, intercept] makes the window's unit of the values.
export function windowed(values, [slope, intercept], level, width) {
  const grey = new Uint8ClampedArray(values.length), low = level - width / 2, factor = 255 / width;
  for (let i = 0; i < values.length; i++) grey[i] = (values[i] * slope + intercept - low) * factor; // clamps and rounds
  return grey;
}

// Rows of the slices that a choice leaves, in order.
export function chosen(index, lesion, { side, kind, least, most }) {
  const pixels = index.lesions[lesion].pixels, has = new Set(index.classes[kind]);
  const fits = { [EVERY]: () => true, [LESION]: row => pixels[row] > 0, [NO_LESION]: row => pixels[row] === 0 };
  const fit = fits[kind] ?? (row => has.has(row));
  return range(pixels.length).filter(
    row => fit(row) && (!side || index.sides[row] === side) && pixels[row] >= least && pixels[row] <= most);
}

// Rows in the order of a jump; slices without a Dice, or without a lesion, are left out.
export function ordered(index, lesion, rows, by, network) {
  const { pixels, dice } = index.lesions[lesion];
  const value = by === "worst" || by === "best" ? row => dice[network][row] : row => pixels[row] || null;
  const sign = by === "worst" || by === "smallest" ? 1 : -1;
  return rows.filter(row => value(row) !== null).sort((a, b) => sign * (value(a) - value(b)) || a - b);
}

// ---- the view

function element(tag, properties = {}, ...children) {
  const { style, data, ...rest } = properties;
  const made = Object.assign(document.createElement(tag), rest);
  for (const [name, value] of Object.entries(rest)) if (name.includes("-")) made.setAttribute(name, value);
  Object.assign(made.style, style);
  Object.assign(made.dataset, data);
  made.append(...children);
  return made;
}

// Fills `root` with the browser of `index`; `source.ask(what)` promises the pixels. Returns {goTo, close}.
export function mount(root, index, source, { row: first = null, moved = () => {} } = {}) {
  const names = index.networks.map(network => network.label);
  const state = {
    side: index.sides.includes("test") && names.length ? "test" : "",
    kind: EVERY, lesion: Object.keys(index.lesions)[0],
    least: 0, most: Infinity, patient: null, at: 0, window: 0, level: index.windows[0].level,
    width: index.windows[0].width, overlay: AREA, threshold: Math.round(index.threshold * 100), opacity: 60,
    truth: true, shown: names.map(() => true), judge: 0, zoom: 1, left: 0, top: 0,
  };
  let rows = [], patients = [], firsts = new Map(), own = [];
  let jumped = ["", -1], seen = null, message = "", closed = false, cleared = 0;
  const loaded = new Map(), asked = new Map(); // key -> what came; key -> promise
  const layers = new Map(); // network -> [key, what lies over the CT]: only what changes is made anew
  let bytes = 0, frame = 0, resting = 0;

  // -- what is loaded

  const keyOf = what => JSON.stringify(what);
  const slice = row => ({ kind: "slice", row, lesion: state.lesion });

  function load(what) {
    const key = keyOf(what);
    if (asked.has(key)) return asked.get(key);
    const coming = source.ask(what).then(keep, error => keep({ error: String(error.message ?? error) }));
    function keep(got) {
      asked.delete(key);
      loaded.set(key, got);
      got.bytes = Object.values(got).flat().reduce((sum, one) => sum + (one?.byteLength ?? 0), 64);
      bytes += got.bytes;
      for (const [old, { bytes: size }] of loaded) {
        if (bytes <= KEPT || loaded.size < 2) break;
        loaded.delete(old);
        bytes -= size;
      }
      return got;
    }
    asked.set(key, coming);
    return coming;
  }

  function here(what) {
    const key = keyOf(what), got = loaded.get(key);
    if (got) { loaded.delete(key); loaded.set(key, got); } // the last used stays longest
    return got;
  }

  // What a frame needs: at once where it is loaded, else as soon as it comes, if it is still wanted then.
  function need(what) {
    const got = here(what);
    if (!got && !closed) load(what).then(show);
    return got;
  }

  // The slices around, nearest first, and those with which the patients before and after begin.
  function prefetch() {
    const apart = new Map(own.map((row, at) => [row, Math.abs(at - state.at)]));
    const around = [...own].sort((a, b) => apart.get(a) - apart.get(b));
    const at = patients.indexOf(state.patient);
    around.splice(3, 0, ...[at + 1, at - 1].filter(k => k in patients).map(k => firsts.get(patients[k])));
    for (const row of around) {
      if (asked.size >= AHEAD || closed) return;
      if (!loaded.has(keyOf(slice(row))) && !asked.has(keyOf(slice(row)))) load(slice(row)).then(prefetch);
    }
  }

  // Shows once a frame, however often a hand moves.
  function soon() {
    frame ||= requestAnimationFrame(() => { frame = 0; show(); });
  }

  // -- controls

  const labelled = (...children) => element("label", { className: "sah-control" }, ...children);
  function choice(label, options, name, act) {
    const values = options.map(([, value]) => value);
    const list = element("select", { disabled: options.length < 2 });
    list.onchange = () => { state[name] = values[list.value]; act(); };
    options.forEach(([text], k) => list.append(element("option", { value: k, textContent: text })));
    list.set = value => { list.value = Math.max(values.indexOf(value), 0); };
    list.set(state[name]);
    return [labelled(label, list), list];
  }
  function slider(label, name, min, max, act, shown = value => value) {
    const handle = element("input", { type: "range", min, max, step: 1, "aria-label": label });
    const value = element("output");
    handle.oninput = () => { state[name] = Number(handle.value); act(); };
    handle.set = (number, most = max) => {
      handle.max = most;
      handle.value = number;
      handle.disabled = Number(handle.min) >= most;
      value.textContent = shown(number);
      handle.setAttribute("aria-valuetext", value.textContent);
    };
    handle.set(state[name] ?? 0);
    return [labelled(label, handle, value), handle];
  }

  const kinds = [EVERY, LESION, NO_LESION, ...Object.keys(index.classes)];
  const sides = ["", ...["train", "validation", "test"].filter(side => index.sides.includes(side))];
  const [sideBox] = choice("Side", sides.map(side => [side || "all sides", side]), "side", fill);
  const [kindBox] = choice("Slices", kinds.map(kind => [kind, kind]), "kind", fill);
  const lesions = Object.keys(index.lesions);
  const [lesionBox] = choice("Lesion", lesions.map(name => [name, name]), "lesion", fill);
  lesionBox.hidden = lesions.length < 2;
  const limit = (name, placeholder, none) => element("input", {
    type: "number", min: 0, placeholder, "aria-label": `Lesion pixels, ${placeholder}`,
    oninput: event => { state[name] = event.target.value === "" ? none : Number(event.target.value); fill(); },
  });
  const least = limit("least", "least", 0), most = limit("most", "most", Infinity);
  const sizes = element("span", { className: "sah-control" }, "Lesion px", least, most);
  const taken = () => { Object.assign(state, { patient: patients[state.patientAt], at: 0 }); fillSlices(); };
  const [patientBox, patient] = slider("Patient", "patientAt", 0, 0, taken, at => patients[at] ?? "none");
  const place = at => (own.length ? `${at + 1} of ${own.length}` : "none");
  const [sliceBox, position] = slider("Slice", "at", 0, 0, show, place);
  const [judgeBox] = choice("of", names.map((name, k) => [name, k]), "judge", () => {});
  const jumps = ["worst", "best", "largest", "smallest"].map(by => element("button", {
    type: "button", textContent: by[0].toUpperCase() + by.slice(1), onclick: () => jump(by),
    disabled: !names.length && (by === "worst" || by === "best"),
    title: `Go to the ${by} ${by === "worst" || by === "best" ? "Dice" : "lesion"}; again for the next`,
  }));
  const windows = [...index.windows.map((one, k) => [one.name, k]), ["by hand", BY_HAND]];
  const [windowBox, windowList] = choice("Window", windows, "window", takeWindow);
  const [low, high, wide] = index.unit === "HU" ? [-200, 1000, 3000] : [0, 255, 255];
  const byHand = () => { state.window = BY_HAND; soon(); };
  const [levelBox, level] = slider("Level", "level", low, high, byHand);
  const [widthBox, width] = slider("Width", "width", 1, wide, byHand);
  const overlays = [AREA, OUTLINE, PROBABILITY, ERROR, ...(index.networks.some(one => one.gates) ? [GATE] : [])];
  const [overlayBox, overlayList] = choice("Networks show", overlays.map(name => [name, name]), "overlay", show);
  const [thresholdBox, threshold] = slider("Threshold", "threshold", 1, 99, soon, value => (value / 100).toFixed(2));
  const [opacityBox, opacity] = slider("Opacity", "opacity", 10, 100, soon, value => `${value} %`);
  for (const box of [judgeBox, overlayBox, thresholdBox, opacityBox]) box.hidden = !names.length;
  const tick = (label, get, set) => {
    const box = element("input", { type: "checkbox", checked: get(), onchange: () => { set(box.checked); show(); } });
    return [element("label", { className: "sah-control" }, box, label), box];
  };
  const [truthBox, truthTick] = tick("Ground truth", () => state.truth, on => { state.truth = on; });
  const shownBoxes = names.map((name, k) => tick(name, () => true, on => { state.shown[k] = on; })[0]);
  const save = element("button", { type: "button", textContent: "Export PNG", title: "The view as one picture" });
  save.onclick = exported;
  const status = element("div", { className: "sah-status", "aria-live": "polite" });
  const panels = ["CT and ground truth", ...names].map((title, k) => {
    const canvas = element("canvas", { role: "img" });
    const note = element("figcaption", { className: "sah-note" });
    const colour = k ? index.networks[k - 1].colour : index.truth;
    const head = element("div", { className: "sah-head" }, element("i", { style: { borderColor: colour } }), title);
    const frame = element("div", { className: "sah-frame" }, canvas);
    return { title, canvas, note, box: element("figure", { className: "sah-panel" }, head, frame, note) };
  });
  const keys = "Arrow keys or the wheel go through slices, Page Up and Page Down through patients; drag for window and "
    + "level; t shows the truth, o the next overlay; a double click takes all back.";
  const named = { role: "group", "aria-label": "The pictures", title: keys };
  const stage = element("div", { className: "sah-panels", tabIndex: 0, ...named }, ...panels.map(panel => panel.box));
  const bar = (...children) => element("div", { className: "sah-bar" }, ...children);
  // Where JupyterLab has shortcuts on letters and arrows, they are this view's while it has the focus.
  const view = element("div", { className: "sah", data: { lmSuppressShortcuts: "true" } },
    bar(sideBox, kindBox, lesionBox, sizes), bar("Jump to", ...jumps, judgeBox), bar(patientBox, sliceBox),
    status, stage,
    bar(windowBox, levelBox, widthBox), bar(overlayBox, thresholdBox, opacityBox), bar(truthBox, ...shownBoxes, save));
  root.replaceChildren(view);

  // -- which slice

  function choose() {
    rows = chosen(index, state.lesion, state);
    firsts = new Map();
    for (const row of rows) if (!firsts.has(index.patients[row])) firsts.set(index.patients[row], row);
    patients = [...firsts.keys()];
  }
  function fill() {
    choose();
    if (!patients.includes(state.patient)) state.patient = patients[0];
    fillSlices();
  }
  function fillSlices() {
    own = rows.filter(row => index.patients[row] === state.patient);
    state.at = Math.min(state.at, Math.max(own.length - 1, 0));
    patient.set(Math.max(patients.indexOf(state.patient), 0), Math.max(patients.length - 1, 0));
    show();
  }
  function goTo(row) {
    if (!rows.includes(row)) {
      Object.assign(state, { side: "", kind: EVERY, least: 0, most: Infinity });
      sideBox.lastElementChild.set("");
      kindBox.lastElementChild.set(EVERY);
      least.value = most.value = "";
      choose();
    }
    state.patient = index.patients[row];
    state.at = rows.filter(one => index.patients[one] === state.patient).indexOf(row);
    fillSlices();
  }
  function step(by) {
    state.at = Math.min(Math.max(state.at + by, 0), Math.max(own.length - 1, 0));
    show();
  }
  function stepPatient(by) {
    state.patient = patients[Math.min(Math.max(patients.indexOf(state.patient) + by, 0), patients.length - 1)];
    state.at = 0;
    fillSlices();
  }
  function jump(by) {
    const found = ordered(index, state.lesion, rows, by, state.judge);
    if (!found.length) return say("No slice of this choice has a lesion or a Dice to go by.");
    const key = JSON.stringify([by, state.judge, state.lesion, found]);
    jumped = [key, jumped[0] === key ? (jumped[1] + 1) % found.length : 0];
    message = `${by[0].toUpperCase() + by.slice(1)}, ${jumped[1] + 1} of ${found.length}`;
    goTo(found[jumped[1]]);
  }
  function say(text) { message = text; show(); }

  // -- which window

  function takeWindow() {
    if (state.window !== BY_HAND) ({ level: state.level, width: state.width } = index.windows[state.window]);
    show();
  }

  // The slice in the window: {grey, height, width, words}
  function picture(row, one) {
    const unit = index.unit === "HU" ? "HU" : "of 255", ends = [-0.5, 0.5].map(k => state.level + k * state.width);
    const words = `${ends.map(end => Number(end.toFixed(1))).join(" to ")} ${unit}`;
    const stored = index.windows.findIndex(w => w.stored >= 0 && w.level === state.level && w.width === state.width);
    const { height, width } = one;
    if (stored >= 0) {
      const seenSo = index.unit === "HU" ? "as the networks see it" : "as stored";
      return { grey: one.pictures[index.windows[stored].stored], height, width, words: `${words}, ${seenSo}` };
    }
    let why = "";
    if (index.unit === "HU" && index.hounsfield) {
      const scan = need({ kind: "hounsfield", row });
      if (scan?.values) {
        const grey = windowed(scan.values, [1, 0], state.level, state.width);
        return { grey, height: scan.height, width: scan.width, words: `${words}, from the scan` };
      }
      why = scan ? `: ${scan.error}` : ", the scan is being read";
    }
    const whole = index.windows.find(w => w.stored === 0);
    const scale = [whole.width / 255, whole.level - whole.width / 2];
    const grey = windowed(one.pictures[0], scale, state.level, state.width);
    return { grey, height, width, words: `${words}, within the stored 8 bits${why}` };
  }

  // -- what is seen

  function show() {
    if (closed) return;
    const row = own[state.at] ?? null, text = message;
    position.set(state.at, Math.max(own.length - 1, 0));
    for (const [name, control] of Object.entries({ level, width, threshold, opacity })) control.set(state[name]);
    windowList.set(state.window);
    overlayList.set(state.overlay);
    truthTick.checked = state.truth;
    panels.slice(1).forEach((panel, k) => { panel.box.hidden = !state.shown[k]; });
    if (row === null) {
      seen = null;
      panels.forEach(({ canvas, note }) => { canvas.width = canvas.height = 1; note.replaceChildren(); });
      status.textContent = "No slice fits this choice; widen it.";
      return;
    }
    const one = need(slice(row));
    if (!one) return; // what was seen stays until it comes
    if (one.error) { status.textContent = `This slice cannot be read: ${one.error}`; return; }
    const ct = picture(row, one);
    const side = index.sides[row] ? `, ${index.sides[row]} side` : "";
    const identity = `slice ${index.slices[row]} of patient ${index.patients[row]}${side}`;
    const { threshold: limit } = state;
    if (one.limit !== limit) Object.assign(one, { limit, masks: one.percent.map(percent => above(percent, limit)) });
    const { masks } = one;
    const notes = [truthNote(row, one), ...names.map((_, k) => networkNote(row, one, masks[k]))];
    const grey = coloured(ct, i => 0xff000000 | (ct.grey[i] * 0x010101));
    panels.forEach((panel, k) => {
      if (k && !state.shown[k - 1]) return;
      paint(panel.canvas, grey, one, masks[k - 1], k - 1, row);
      panel.canvas.setAttribute("aria-label", `${panel.title}: ${identity}. ${notes[k].filter(Boolean).join(", ")}.`);
      const [most, beside, below] = notes[k];
      panel.note.replaceChildren(element("b", { textContent: most }), ` \u00a0${beside}`, element("br"), below);
    });
    const choice = `${counted(rows.length, "slice")} of ${counted(patients.length, "patient")} to choose from`;
    const words = [`window ${ct.words}`, choice, text].filter(Boolean).join(" · ");
    status.replaceChildren(element("b", { textContent: identity }), ` · ${words} `);
    if (state.overlay === ERROR && names.length) status.append(errorKey());
    if (seen?.row !== row) {
      message = "";
      clearTimeout(resting);
      resting = setTimeout(moved, REST_MS, row);
    }
    seen = { row, identity, notes };
    view.dataset.row = row;
    prefetch();
  }

  function area(row, pixels) {
    const square = index.square_mm[row];
    return square === null ? `${pixels.toLocaleString("en")} px` : `${((square * pixels) / 100).toFixed(2)} cm²`;
  }
  const called = () => (state.lesion === "any" ? "lesion" : state.lesion);
  function truthNote(row, one) {
    const pixels = one.truth.reduce((sum, value) => sum + value, 0);
    return pixels ? [area(row, pixels), called(), ""] : [`no ${called()}`, "", ""];
  }
  function networkNote(row, one, mask) {
    if (!mask) return ["no prediction", `this slice is on the ${index.sides[row]} side`, ""];
    const found = counts(mask, one.truth);
    if (!found.found && !found.lesion) return ["nothing found", `and there is no ${called()}`, "Dice 0/0"];
    return [`Dice ${dice(found).toFixed(3)}`, `IoU ${iou(found).toFixed(3)}`, `${area(row, found.found)} found`];
  }

  const counted = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;
  function errorKey() {
    const swatch = colour => element("i", { style: { background: colour } });
    const entries = Object.entries(index.agreement).flatMap(([name, colour]) => [swatch(colour), `${name} `]);
    return element("span", { className: "sah-key" }, ...entries);
  }

  function canvasOf(height, width, fillIn) {
    const canvas = element("canvas", { width, height }), context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    fillIn(new Uint32Array(image.data.buffer)); // ABGR, as every machine that runs a browser has it
    context.putImageData(image, 0, 0);
    return canvas;
  }
  const abgr = ([red, green, blue], alpha = 255) => ((alpha << 24) | (blue << 16) | (green << 8) | red) >>> 0;
  const rgbOf = colour => [1, 3, 5].map(at => parseInt(colour.slice(at, at + 2), 16));

  function paint(canvas, grey, one, mask, network, row) {
    const scale = SIDE / Math.max(one.height, one.width);
    const wanted = [Math.round(one.width * scale), Math.round(one.height * scale)];
    if (canvas.width !== wanted[0] || canvas.height !== wanted[1]) [canvas.width, canvas.height] = wanted;
    const context = canvas.getContext("2d"), size = [0, 0, canvas.width, canvas.height];
    const over = (layer, smooth) => { context.imageSmoothingEnabled = smooth; context.drawImage(layer, ...size); };
    over(grey, true);
    const key = [row, state.lesion, state.overlay, state.threshold, state.opacity].join();
    if (mask) {
      if (layers.get(network)?.[0] !== key) layers.set(network, [key, layerOf(one, mask, network)]);
      const { layer, outline } = layers.get(network)[1];
      if (layer) over(layer, state.overlay === PROBABILITY);
      if (outline) stroke(context, outline, scale, index.networks[network].colour, 4);
    }
    if (network >= 0 && state.overlay === GATE && index.networks[network].gates) {
      const gate = need({ kind: "gate", row, network }), alpha = Math.round(2.55 * state.opacity);
      if (gate?.values) over(coloured(gate, i => abgr(index.heat[gate.values[i]], alpha)), true);
    }
    one.outline ??= pathOf(border(one.truth, one.height, one.width));
    if (state.truth && state.overlay !== ERROR) stroke(context, one.outline, scale, index.truth, 1.6);
  }

  const coloured = ({ height, width }, colourAt) => canvasOf(height, width, pixels => {
    for (let i = 0; i < pixels.length; i++) pixels[i] = colourAt(i);
  });
  function layerOf(one, mask, network) {
    const alpha = Math.round(2.55 * state.opacity), { overlay } = state;
    if (overlay === OUTLINE) return { outline: pathOf(border(mask, one.height, one.width)) };
    if (overlay === AREA) {
      const colour = abgr(rgbOf(index.networks[network].colour), alpha);
      return { layer: coloured(one, i => (mask[i] ? colour : 0)) };
    }
    if (overlay === ERROR) {
      const { agreement } = index;
      const [found, invented, missed] = ["found", "invented", "missed"].map(name => abgr(rgbOf(agreement[name]), alpha));
      return { layer: coloured(one, i => (mask[i] ? (one.truth[i] ? found : invented) : one.truth[i] ? missed : 0)) };
    }
    if (overlay === PROBABILITY) {
      const heat = index.heat.map((rgb, k) => abgr(rgb, Math.min((2 * k) / 255, 1) * alpha));
      return { layer: coloured(one, i => heat[Math.round(2.55 * one.percent[network][i])]) };
    }
    return {};
  }
  function pathOf(lines) {
    const path = new Path2D();
    for (let k = 0; k < lines.length; k += 4) {
      path.moveTo(lines[k], lines[k + 1]);
      path.lineTo(lines[k + 2], lines[k + 3]);
    }
    return path;
  }
  function stroke(context, path, scale, colour, thick) {
    context.save();
    context.scale(scale, scale);
    Object.assign(context, { strokeStyle: colour, lineWidth: thick / scale, lineCap: "square" });
    context.stroke(path);
    context.restore();
  }

  // The view as one picture, with headings and scores.
  function exported() {
    if (!seen) return;
    const all = panels.map((panel, k) => ({ ...panel, lines: seen.notes[k] }));
    const shown = all.filter((_, k) => !k || state.shown[k - 1]);
    const sheet = element("canvas", { width: shown.length * (SIDE + 16) + 16, height: SIDE + 150 });
    const context = sheet.getContext("2d");
    Object.assign(context, { fillStyle: "#fff", font: "18px sans-serif" });
    context.fillRect(0, 0, sheet.width, sheet.height);
    context.fillStyle = "#1b1f24";
    context.fillText(`S${seen.identity.slice(1)}`, 16, 28);
    shown.forEach(({ title, canvas, lines }, k) => {
      const left = 16 + k * (SIDE + 16);
      context.fillText(title, left, 58);
      context.drawImage(canvas, left, 68);
      lines.forEach((line, n) => context.fillText(line, left, SIDE + 92 + 22 * n));
    });
    const download = `${index.slices[seen.row].replaceAll("/", "_")}.png`;
    const link = element("a", { download, href: sheet.toDataURL("image/png") });
    document.body.append(link);
    link.click();
    link.remove();
  }

  // -- hands

  function placed() {
    const transform = `translate(${state.left}px, ${state.top}px) scale(${state.zoom})`;
    for (const { canvas } of panels) canvas.style.transform = transform;
  }
  function zoomed(factor) {
    state.zoom = Math.min(Math.max(state.zoom * factor, 1), 8);
    if (state.zoom === 1) state.left = state.top = 0;
    placed();
  }
  stage.addEventListener("wheel", event => {
    event.preventDefault();
    if (event.ctrlKey) return zoomed(Math.exp(-event.deltaY / 100)); // a pinch on a touch pad
    const now = performance.now();
    if (now - cleared < 30) return; // a wheel sends more turns than a person can look at
    cleared = now;
    step(Math.sign(event.deltaY));
  }, { passive: false });
  const acts = {
    ArrowDown: () => step(1), ArrowRight: () => step(1), ArrowUp: () => step(-1), ArrowLeft: () => step(-1),
    PageDown: () => stepPatient(1), PageUp: () => stepPatient(-1),
    Home: () => step(-own.length), End: () => step(own.length),
    t: () => { state.truth = !state.truth; show(); },
    o: () => { state.overlay = overlays[(overlays.indexOf(state.overlay) + 1) % overlays.length]; show(); },
  };
  stage.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || !acts[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  });
  const down = new Map(); // pointers that touch the panels -> where they are
  let swiped = 0;
  stage.addEventListener("pointerdown", event => {
    if (event.button) return;
    down.set(event.pointerId, event);
    stage.setPointerCapture(event.pointerId);
    swiped = 0;
  });
  stage.addEventListener("pointermove", event => {
    const before = down.get(event.pointerId);
    if (!before) return;
    const dx = event.clientX - before.clientX, dy = event.clientY - before.clientY;
    if (down.size === 2) {
      const [other] = [...down.values()].filter(one => one.pointerId !== event.pointerId);
      const apart = one => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      [state.left, state.top] = [state.left + dx / 2, state.top + dy / 2];
      zoomed(apart(event) / Math.max(apart(before), 1));
    } else if (event.pointerType === "touch") {
      swiped += dx;
      const steps = Math.trunc(swiped / 24);
      if (steps) { swiped -= steps * 24; step(-steps); }
    } else if (event.shiftKey || event.buttons === 4) {
      [state.left, state.top] = [state.left + dx, state.top + dy];
      placed();
    } else if (dx || dy) {
      const unit = index.unit === "HU" ? Math.max(state.width / 200, 0.5) : 1;
      state.width = Math.min(Math.max(Math.round(state.width + dx * unit), 1), wide);
      state.level = Math.min(Math.max(Math.round(state.level + dy * unit), low), high);
      byHand();
    }
    down.set(event.pointerId, event);
  });
  for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, event => down.delete(event.pointerId));
  stage.addEventListener("dblclick", () => {
    Object.assign(state, { window: 0, zoom: 1, left: 0, top: 0 });
    placed();
    takeWindow();
  });

  // The largest lesion to begin with: a rule over the ground truth.
  fill();
  const begin = first ?? ordered(index, state.lesion, rows, "largest")[0];
  if (begin !== undefined) goTo(begin);
  return { goTo, close: () => { closed = true; } };
}

// ---- the two homes

// In a notebook: the kernel sends what is asked for.
function render({ model, el }) {
  const view = Math.random().toString(36).slice(2), waiting = new Map();
  let questions = 0, told = model.get("row");
  const answered = (content, [body]) => {
    const wait = waiting.get(content.id);
    if (!wait) return; // another view's
    waiting.delete(content.id);
    if (content.error) return wait.failed(new Error(content.error));
    const bytes = new Uint8Array(body.buffer, body.byteOffset, body.byteLength);
    decoded(content, bytes).then(wait.came, wait.failed);
  };
  model.on("msg:custom", answered);
  const ask = what => new Promise((came, failed) => {
    const id = `${view}-${questions++}`;
    waiting.set(id, { came, failed });
    model.send({ ...what, id });
  });
  const moved = row => { told = row; model.set("row", row); model.save_changes(); };
  const mounted = mount(el, model.get("index"), { ask }, { row: model.get("row"), moved });
  // What this view has told itself it does not follow: the hand may have gone on meanwhile.
  const follow = () => { if (model.get("row") !== told) mounted.goTo(told = model.get("row")); };
  model.on("change:row", follow);
  return () => { mounted.close(); model.off("msg:custom", answered); model.off("change:row", follow); };
}

export async function decoded(header, body) {
  const bytes = await inflate(body);
  if (header.kind === "slice") return unpack(bytes, header);
  const values = header.kind === "hounsfield" ? new Int16Array(bytes.buffer) : bytes;
  return { values, height: header.height, width: header.width };
}

// In a page: everything lies in it, {index, slices: {row: [header, base64]}}.
export function inPage(root, held) {
  const bytesOf = text => Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const ask = async ({ row }) => decoded(held.slices[row][0], bytesOf(held.slices[row][1]));
  return mount(root, held.index, { ask });
}

export default { render };
