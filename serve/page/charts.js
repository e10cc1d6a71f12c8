// Draws: rows over time (a canvas with a label per row), horizontal bars, face boxes. Knows no API and keeps no data.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const dark = matchMedia("(prefers-color-scheme: dark)");

/** Set a canvas to its size on the screen; returns its context in CSS pixels, or null while it is not shown. */
function prepared(canvas, height) {
  const width = canvas.clientWidth, scale = window.devicePixelRatio || 1;
  if (!width) return null;
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * scale);
  canvas.height = Math.round(height * scale);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, 0, 0);
  return { context, width, height };
}

/**
 * A timeline in `box`, a slider by pointer and keys: `pick(frame)` is called, `told(frame)` names a frame.
 * `set(rows, frames, notes)` takes [{label, detail, values by frame with NaN for "no face", present | null}], where
 * `doubts` (0 to 1 by frame) shade a row and `signed` values run from -1 to 1 around its middle, and
 * {marks: [{frame}], excluded: [{from, to}]}; `draw(frame)` moves the line.
 */
export function timeline(box, label, pick, told) {
  const canvas = document.createElement("canvas"), names = document.createElement("div"), axis = document.createElement("div");
  names.className = "names";
  axis.className = "axis numbers";
  box.replaceChildren(names, canvas, axis);
  let rows = [], frames = 1, notes = { marks: [], excluded: [] }, base = null, now = 0;
  asSlider(canvas, label, () => frames, pick);

  function set(newRows, newFrames, newNotes) {
    rows = newRows; frames = Math.max(1, newFrames); notes = newNotes; base = null;
    names.replaceChildren(...rows.map((row) => {
      const name = Object.assign(document.createElement("span"), { title: `${row.label} ${row.detail}` });
      name.append(...(row.detail ? [bold(row.label), small(row.detail)] : [row.label]));
      return name;
    }));
    axis.replaceChildren(...[0, 0.5, 1].map((share) => Object.assign(document.createElement("span"), { textContent: told(Math.round(share * (frames - 1))) })));
    canvas.setAttribute("aria-valuemax", frames - 1);
    draw(now);
  }

  function paint() {
    const height = names.getBoundingClientRect().height;
    const area = prepared(canvas, height);
    if (!area) return;
    const each = height / rows.length, context = area.context;
    context.fillStyle = colour("--back");
    context.fillRect(0, 0, area.width, height);
    rows.forEach((row, i) => curve(context, row, i * each, each, area.width, frames));
    const at = (frame) => (frame / frames) * area.width;
    for (const { from, to } of notes.excluded) hatch(context, at(from), at(to + 1), height);
    context.fillStyle = colour("--mark");
    for (const { frame } of notes.marks) { context.fillRect(at(frame) - 1, 0, 2, height); context.fillRect(at(frame) - 4, 0, 8, 5); }
    base = context.getImageData(0, 0, canvas.width, canvas.height);
  }

  function draw(frame) {
    now = frame;
    if (!base || Math.abs(canvas.width - canvas.clientWidth * (window.devicePixelRatio || 1)) > 1) paint();
    if (!base) return;
    const context = canvas.getContext("2d");
    context.putImageData(base, 0, 0);
    context.fillStyle = colour("--ink");
    context.fillRect(((frame + 0.5) / frames) * canvas.clientWidth - 0.75, 0, 1.5, canvas.clientHeight);
    canvas.setAttribute("aria-valuenow", frame);
    canvas.setAttribute("aria-valuetext", told(frame));
  }

  const again = () => { base = null; draw(now); };
  new ResizeObserver(again).observe(box);
  dark.addEventListener("change", again);
  return { set, draw };
}

/** One row: the curve as an area (the highest value under each pixel, the farthest from 0 of signed ones), presence as a strip along the bottom. */
function curve(context, row, top, height, width, frames) {
  const floor = row.signed ? top + height / 2 : top + height - 5, tall = row.signed ? height / 2 - 3 : height - 9, step = Math.max(1, frames / width);
  context.fillStyle = cached("--line");
  context.fillRect(0, floor, width, 1);
  for (let start = 0; start < frames; start += step) {
    const stop = Math.max(start + 1, Math.min(frames, start + step));
    let high = NaN, present = 0, doubt = 0;
    for (let i = Math.floor(start); i < stop; i++) {
      const value = row.values[i];
      if (!Number.isNaN(value) && !(row.signed ? Math.abs(value) <= Math.abs(high) : value <= high)) high = value;
      if (row.doubts?.[i] > doubt) doubt = row.doubts[i];
      if (row.present) present |= row.present[i];
    }
    const x = (start / frames) * width, wide = Math.max(1, ((stop - start) / frames) * width + 0.5);
    if (Number.isNaN(high)) continue;
    if (doubt) shade(context, doubt, Math.round(x), Math.round(((start + step) / frames) * width), top + 1, height - 2);
    context.fillStyle = cached("--fill");
    context.fillRect(x, floor - high * tall, wide, high * tall);
    context.fillStyle = cached("--accent");
    context.fillRect(x, floor - high * tall, wide, 1.5);
    if (present) { context.fillStyle = cached("--mark"); context.fillRect(x, floor + 1, wide, 3); }
  }
}

/** How little is known, behind a curve; between whole pixels, so that no seam shows. */
function shade(context, doubt, left, right, top, height) {
  context.globalAlpha = 0.6 * doubt;
  context.fillStyle = cached("--edge");
  context.fillRect(left, top, right - left, height);
  context.globalAlpha = 1;
}

/** A range that does not count. */
function hatch(context, left, right, height) {
  context.save();
  context.beginPath();
  context.rect(left, 0, Math.max(2, right - left), height);
  context.clip();
  context.globalAlpha = 0.7;
  context.fillStyle = cached("--back");
  context.fillRect(left, 0, right - left, height);
  context.globalAlpha = 1;
  context.strokeStyle = cached("--edge");
  for (let x = left - height; x < right; x += 8) { context.beginPath(); context.moveTo(x, height); context.lineTo(x + height, 0); context.stroke(); }
  context.restore();
}

let cache = {};
dark.addEventListener("change", () => { cache = {}; });
function cached(name) { return (cache[name] ??= colour(name)); } // getComputedStyle per pixel column would be slow

function asSlider(canvas, label, frames, pick) {
  canvas.tabIndex = 0;
  for (const [name, value] of Object.entries({ role: "slider", "aria-label": label, "aria-valuemin": 0, "aria-valuenow": 0 })) canvas.setAttribute(name, value);
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return Math.min(frames() - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * frames())));
  };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); pick(at(event)); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) pick(at(event)); });
  canvas.addEventListener("keydown", (event) => {
    const now = Number(canvas.getAttribute("aria-valuenow")), last = frames() - 1;
    const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 25, PageDown: -25, Home: -now, End: last - now };
    if (!(event.key in moves)) return;
    event.preventDefault();
    pick(Math.min(last, Math.max(0, now + moves[event.key])));
  });
}

/**
 * Horizontal bars in `box` for [{label, detail, value, share, strong}]: a share from 0 to 1, or with `signed` from -1
 * to 1 around the middle. `radio(i)`: they are a group of radio buttons, arrow keys go through it, and i was chosen.
 */
export function bars(box, items, { signed = false, radio = null, chosen = -1 } = {}) {
  while (box.children.length > items.length) box.lastChild.remove();
  items.forEach((item, i) => {
    const row = box.children[i] ?? box.appendChild(barRow(radio, box));
    const [name, track, value] = row.children, share = Math.max(-1, Math.min(1, item.share)), bar = track.firstChild;
    if (name.dataset.text !== item.label + item.detail) {
      name.dataset.text = name.title = item.label + item.detail;
      name.replaceChildren(bold(item.label), ...(item.detail ? [small(item.detail)] : []));
    }
    bar.style.width = `${Math.abs(share) * (signed ? 50 : 100)}%`;
    bar.style.marginLeft = signed ? `${share < 0 ? 50 + share * 50 : 50}%` : "0";
    bar.className = item.strong ? "strong" : share < 0 ? "less" : "";
    value.textContent = item.value;
    if (!radio) return;
    row.setAttribute("aria-checked", i === chosen);
    row.tabIndex = i === Math.max(0, chosen) ? 0 : -1;
  });
}

function barRow(radio, box) {
  const row = Object.assign(document.createElement(radio ? "button" : "div"), { className: "bar-row" });
  row.innerHTML = '<span></span><div class="track" aria-hidden="true"><i></i></div><span class="value"></span>';
  if (!radio) return row;
  row.type = "button";
  row.setAttribute("role", "radio");
  const place = () => [...box.children].indexOf(row);
  row.addEventListener("click", () => radio(place()));
  row.addEventListener("keydown", (event) => {
    const last = box.children.length - 1, now = place();
    const to = { ArrowDown: now + 1, ArrowRight: now + 1, ArrowUp: now - 1, ArrowLeft: now - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = (to + last + 1) % (last + 1);
    radio(next);
    box.children[next].focus();
  });
  return row;
}

/**
 * Face boxes of one frame over a picture of `width` x `height` that is shown with object-fit: contain, in `canvas`.
 * `hidden`: that picture (a video, image or canvas) is drawn here with its faces covered, so that both are of one moment;
 * with `hidden` null-ish nothing is covered. Where `unread`, the whole picture is.
 */
export function boxes(canvas, rows, width, height, { chosen, hidden = null, unread = false }) {
  const area = prepared(canvas, canvas.parentElement.clientHeight);
  if (!area || !width) return;
  const scale = Math.min(area.width / width, area.height / height), context = area.context;
  const left = (area.width - width * scale) / 2, top = (area.height - height * scale) / 2;
  if (hidden && !unread) context.drawImage(hidden, left, top, width * scale, height * scale);
  if (hidden && unread) { context.fillStyle = "#20262d"; context.fillRect(0, 0, area.width, area.height); }
  context.font = "600 13px system-ui, sans-serif";
  for (const row of rows) {
    const x = left + row.FaceRectX * scale, y = top + row.FaceRectY * scale;
    if (hidden) cover(context, hidden, row, width, { left, top, scale });
    context.lineWidth = row.face_id === chosen ? 3 : 1.5;
    context.strokeStyle = row.face_id === chosen ? "#7fd4f0" : "#ffffffb0";
    context.strokeRect(x, y, row.FaceRectWidth * scale, row.FaceRectHeight * scale);
    const text = `face ${row.face_id}`;
    context.fillStyle = context.strokeStyle;
    context.fillRect(x - context.lineWidth / 2, Math.max(0, y - 20), context.measureText(text).width + 10, 19);
    context.fillStyle = "#10202a";
    context.fillText(text, x + 5, Math.max(14, y - 6));
  }
}

const CELLS = 6, GROWN = 0.2, mosaic = Object.assign(document.createElement("canvas"), { width: CELLS, height: CELLS });
const naturalWidth = (picture) => picture?.videoWidth || picture?.naturalWidth || picture?.width || 0;

/** The part of `picture` at x, y, w, h as six by six cells of their mean colours. */
function cellsOf(picture, x, y, w, h) {
  const context = mosaic.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.clearRect(0, 0, CELLS, CELLS);
  context.drawImage(picture, x, y, w, h, 0, 0, CELLS, CELLS);
  return mosaic;
}

/** Hide a face: its box and a fifth more on each side; hair, chin and ears tell people too. */
function cover(context, picture, row, width, { left, top, scale }) {
  const natural = naturalWidth(picture) / width, grown = 1 + 2 * GROWN;
  const x = row.FaceRectX - GROWN * row.FaceRectWidth, y = row.FaceRectY - GROWN * row.FaceRectHeight;
  const w = row.FaceRectWidth * grown, h = row.FaceRectHeight * grown;
  context.imageSmoothingEnabled = false;
  context.drawImage(cellsOf(picture, x * natural, y * natural, w * natural, h * natural), left + x * scale, top + y * scale, w * scale, h * scale);
}

/** A face cut out of a picture that is `width` wide in the row's pixels, into `canvas`; emptied without a row. */
export function thumbnail(canvas, picture, row, width, blur) {
  const side = row && Math.max(row.FaceRectWidth, row.FaceRectHeight) * 1.3;
  cut(canvas, picture, row && { x: row.FaceRectX + row.FaceRectWidth / 2, y: row.FaceRectY + row.FaceRectHeight / 2, side, roll: 0 }, width, blur);
}

/** A square by its middle, its side and the degrees it is turned to the right, out of a picture, as `thumbnail`. */
export function cut(canvas, picture, square, width, blur) {
  const context = canvas.getContext("2d"), across = canvas.width, natural = naturalWidth(picture) / width;
  context.clearRect(0, 0, across, across);
  if (!square || !natural) return;
  const [x, y, side] = [square.x, square.y, square.side].map((value) => value * natural);
  context.save();
  context.imageSmoothingEnabled = !blur;
  if (blur) context.drawImage(cellsOf(picture, x - side / 2, y - side / 2, side, side), 0, 0, across, across);
  else {
    context.translate(across / 2, across / 2);
    context.rotate((-square.roll * Math.PI) / 180);
    context.scale(across / side, across / side);
    context.drawImage(picture, -x, -y);
  }
  context.restore();
}

export const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

function bold(text) { return Object.assign(document.createElement("b"), { textContent: text }); }
function small(text) { return Object.assign(document.createElement("small"), { textContent: ` ${text}` }); }
