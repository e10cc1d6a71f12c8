// Draws: rows over time (a canvas with a label per row), horizontal bars, face boxes. Knows no API and keeps no data.

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

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
 * A timeline in `box`: `rows` = [{label, detail, values: Float32Array with NaN for "no face", present: Uint8Array | null}].
 * `pick(frame)` is called on pointer and keys, `told(frame)` names a frame. Returns {draw(frame)}.
 */
export function timeline(box, rows, frames, label, pick, told) {
  const canvas = document.createElement("canvas");
  const names = document.createElement("div");
  const axis = document.createElement("div");
  names.className = "names";
  axis.className = "axis numbers";
  for (const row of rows) {
    const name = names.appendChild(document.createElement("span"));
    name.title = `${row.label} ${row.detail}`;
    if (row.detail) { name.append(bold(row.label), small(row.detail)); } else name.textContent = row.label;
  }
  for (const share of [0, 0.5, 1]) axis.appendChild(document.createElement("span")).textContent = told(Math.round(share * (frames - 1)));
  box.replaceChildren(names, canvas, axis);
  asSlider(canvas, label, frames, pick);
  let base = null;

  function paint() {
    const height = names.getBoundingClientRect().height;
    const area = prepared(canvas, height);
    if (!area) return;
    const each = height / rows.length;
    area.context.fillStyle = colour("--back");
    area.context.fillRect(0, 0, area.width, height);
    rows.forEach((row, i) => curve(area.context, row, i * each, each, area.width, frames));
    base = area.context.getImageData(0, 0, canvas.width, canvas.height);
  }

  function draw(frame) {
    if (!base || Math.abs(canvas.width - canvas.clientWidth * (window.devicePixelRatio || 1)) > 1) paint();
    if (!base) return;
    const context = canvas.getContext("2d");
    context.putImageData(base, 0, 0);
    const x = ((frame + 0.5) / frames) * canvas.clientWidth;
    context.fillStyle = colour("--ink");
    context.fillRect(x - 0.75, 0, 1.5, canvas.clientHeight);
    canvas.setAttribute("aria-valuenow", frame);
    canvas.setAttribute("aria-valuetext", told(frame));
  }

  new ResizeObserver(() => { base = null; draw(Number(canvas.getAttribute("aria-valuenow") ?? 0)); }).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { base = null; draw(0); });
  return { draw };
}

/** One row: the curve as an area (the highest value under each pixel), presence as a strip along the bottom. */
function curve(context, row, top, height, width, frames) {
  const floor = top + height - 5, tall = height - 9, step = Math.max(1, frames / width);
  context.fillStyle = colour("--line");
  context.fillRect(0, floor, width, 1);
  for (let start = 0; start < frames; start += step) {
    const stop = Math.max(start + 1, Math.min(frames, start + step));
    let high = NaN, present = 0;
    for (let i = Math.floor(start); i < stop; i++) {
      if (!(row.values[i] <= high)) high = Number.isNaN(row.values[i]) ? high : row.values[i];
      if (row.present) present |= row.present[i];
    }
    const x = (start / frames) * width, wide = Math.max(1, ((stop - start) / frames) * width + 0.5);
    if (Number.isNaN(high)) continue;
    context.fillStyle = cached("--fill");
    context.fillRect(x, floor - high * tall, wide, high * tall);
    context.fillStyle = cached("--accent");
    context.fillRect(x, floor - high * tall, wide, 1.5);
    if (present) { context.fillStyle = cached("--mark"); context.fillRect(x, floor + 1, wide, 3); }
  }
}

let cache = {}, cachedFor = null;
function cached(name) { // getComputedStyle per pixel column would be slow
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  if (cachedFor !== dark) { cache = {}; cachedFor = dark; }
  return (cache[name] ??= colour(name));
}

function asSlider(canvas, label, frames, pick) {
  canvas.tabIndex = 0;
  for (const [name, value] of Object.entries({ role: "slider", "aria-label": label, "aria-valuemin": 0, "aria-valuemax": frames - 1, "aria-valuenow": 0 })) {
    canvas.setAttribute(name, value);
  }
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return Math.min(frames - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * frames)));
  };
  canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); pick(at(event)); });
  canvas.addEventListener("pointermove", (event) => { if (event.buttons) pick(at(event)); });
  canvas.addEventListener("keydown", (event) => {
    const now = Number(canvas.getAttribute("aria-valuenow"));
    const moves = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 25, PageDown: -25, Home: -now, End: frames - 1 - now };
    if (!(event.key in moves)) return;
    event.preventDefault();
    pick(Math.min(frames - 1, Math.max(0, now + moves[event.key])));
  });
}

/** Horizontal bars in `box` for [{label, detail, value, share}]; reuses the rows it made before. */
export function bars(box, items, { tag = "div", attributes = () => ({}), onpick = null } = {}) {
  while (box.children.length > items.length) box.lastChild.remove();
  items.forEach((item, i) => {
    let row = box.children[i];
    if (!row) {
      row = box.appendChild(document.createElement(tag));
      row.className = "bar-row";
      row.innerHTML = '<span></span><div class="track"><i></i></div><output></output>';
      if (onpick) { row.type = "button"; row.addEventListener("click", () => onpick(i)); }
    }
    const [name, track, output] = row.children;
    if (name.dataset.text !== item.label + item.detail) {
      name.dataset.text = name.title = item.label + item.detail;
      name.replaceChildren(bold(item.label), ...(item.detail ? [small(item.detail)] : []));
    }
    track.firstChild.style.width = `${Math.max(0, Math.min(1, item.share)) * 100}%`;
    output.textContent = item.value;
    for (const [key, value] of Object.entries(attributes(i))) row.setAttribute(key, value);
  });
}

/** Face boxes of one frame over a picture of natural size `width` x `height` shown in `canvas`'s box with object-fit: contain. */
export function boxes(canvas, rows, width, height, chosen) {
  const area = prepared(canvas, canvas.parentElement.clientHeight);
  if (!area || !width) return;
  const scale = Math.min(area.width / width, area.height / height);
  const left = (area.width - width * scale) / 2, top = (area.height - height * scale) / 2;
  const context = area.context;
  context.font = "600 13px system-ui, sans-serif";
  for (const row of rows) {
    const x = left + row.FaceRectX * scale, y = top + row.FaceRectY * scale;
    context.lineWidth = row.face_id === chosen ? 3 : 1.5;
    context.strokeStyle = row.face_id === chosen ? "#7fd4f0" : "#ffffffb0";
    context.strokeRect(x, y, row.FaceRectWidth * scale, row.FaceRectHeight * scale);
    const text = `face ${row.face_id}`, wide = context.measureText(text).width + 10;
    context.fillStyle = context.strokeStyle;
    context.fillRect(x - context.lineWidth / 2, Math.max(0, y - 20), wide, 19);
    context.fillStyle = "#10202a";
    context.fillText(text, x + 5, Math.max(14, y - 6));
  }
}

export const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;

function bold(text) { return Object.assign(document.createElement("b"), { textContent: text }); }
function small(text) { return Object.assign(document.createElement("small"), { textContent: ` ${text}` }); }
