// The page: from a dropped file to the player and its panels. Talks through stream.js, draws through charts.js.
import { analyse, Cancelled, NeedsToken } from "./stream.js";
import { bars, boxes, clock, timeline } from "./charts.js";

const $ = (id) => document.getElementById(id);
const show = (id, visible) => { $(id).hidden = !visible; };

let controller = null; // of the upload under way
let view = null; // what is shown: {recording, files, faces, face, times, frame, explained, timelines, url}

// -- choosing and sending ----------------------------------------------------------------------------------------

$("file").addEventListener("change", () => { if ($("file").files.length) send([...$("file").files]); });
$("form").addEventListener("submit", (event) => { event.preventDefault(); if ($("file").files.length) send([...$("file").files]); });
for (const name of ["dragenter", "dragover"]) addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
for (const name of ["dragleave", "drop"]) addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.remove("over"); });
addEventListener("drop", (event) => { const files = [...event.dataTransfer.files]; if (files.length && !$("start").hidden) send(files); });
$("cancel").addEventListener("click", () => controller?.abort());
$("token").value = sessionStorage.getItem("ssm-token") ?? "";

async function send(files) {
  controller?.abort();
  controller = new AbortController();
  const token = $("token").value.trim();
  sessionStorage.setItem("ssm-token", token);
  show("error", false);
  show("progress", true);
  progress({ sent: 0, frames: 0, total: 0 });
  try {
    const faces = new FormData($("form")).get("faces");
    const recording = await analyse(files, { faces, token, signal: controller.signal, seen: progress });
    open(recording, files);
  } catch (error) {
    if (error instanceof NeedsToken) show("token-box", true);
    if (!(error instanceof Cancelled)) fail(error.message);
  } finally {
    show("progress", false);
    $("file").value = "";
  }
}

function progress({ sent, frames, total }) {
  const sending = sent < 1 && !frames;
  $("stage").textContent = sending ? `Sending ${Math.round(sent * 100)} %`
    : frames ? `Analysing: frame ${frames}${total ? ` of ${total}` : ""}` : "Reading the file";
  if (sending || total) $("bar").value = sending ? sent : frames / total;
  else $("bar").removeAttribute("value");
}

function fail(message) {
  $("error").textContent = message;
  show("error", true);
}

// -- showing a result ----------------------------------------------------------------------------------------------

function open(recording, files) {
  const faces = recording.faces();
  const pictures = recording.start.video.kind === "pictures";
  view = { recording, files, faces, face: null, times: recording.times(), frame: 0, explained: null, timelines: [], pictures, url: null };
  $("title").textContent = files.length > 1 ? `${files.length} pictures` : files[0].name;
  $("facts").textContent = facts(recording, faces.length);
  $("scrub").max = Math.max(0, recording.frames - 1);
  show("start", false);
  show("result", true);
  show("unplayable", false);
  show("video", !pictures);
  show("picture", pictures);
  if (!pictures) { view.url = URL.createObjectURL(files[0]); $("video").src = view.url; }
  faceButtons();
  choose(faces[0] ?? null);
  $("title").tabIndex = -1;
  $("title").focus();
}

function facts({ start, rows, frames }, faces) {
  const video = start.video;
  const found = rows.filter((row) => row.success).length;
  const size = video.kind === "pictures" ? "" : `, ${video.width} × ${video.height}, ${Math.round(video.rate * 10) / 10} frames/s`;
  const people = faces === 0 ? "no face found" : faces === 1 ? "1 face" : `${faces} faces`;
  const unit = video.kind === "pictures" ? "picture" : "frame";
  return `${frames} ${unit}${frames === 1 ? "" : "s"}${size}; ${people}${faces ? `, ${found} measurements` : ""}`;
}

function faceButtons() {
  $("tabs").replaceChildren(...(view.faces.length > 1 ? view.faces.map((face) => {
    const button = Object.assign(document.createElement("button"), { type: "button", textContent: `Face ${face.id}` });
    button.addEventListener("click", () => choose(face));
    return button;
  }) : []));
}

function choose(face) {
  view.face = face;
  view.explained = null;
  [...$("tabs").children].forEach((button, i) => button.setAttribute("aria-pressed", view.faces[i] === face));
  const { aus, expressions } = view.recording;
  const series = (name) => Float32Array.from({ length: view.times.length }, (_, i) => face?.rows[i]?.[name] ?? NaN);
  const flags = (name) => Uint8Array.from({ length: view.times.length }, (_, i) => face?.rows[i]?.[name] ?? 0);
  const expressionRows = expressions.map((name) => ({ label: name, detail: "", values: series(name), present: null }));
  const auRows = aus.map(({ code, name }) => ({ label: code, detail: name, values: series(code), present: flags(`${code}_c`) }));
  view.timelines = [
    timeline($("expression-rows"), expressionRows, view.times.length, "Expression over time", seek, told),
    timeline($("au-rows"), auRows, view.times.length, "Action units over time", seek, told),
  ];
  goTo(view.frame);
}

/** Show the numbers of one frame; the player follows only where `seek` was asked for. */
function goTo(frame) {
  if (!view) return;
  view.frame = frame;
  const row = view.face?.rows[frame];
  $("scrub").value = frame;
  $("clock").textContent = told(frame);
  for (const each of view.timelines) each.draw(frame);
  if (view.pictures) showPicture(frame);
  drawBoxes();
  drawExpressions(row);
  drawWhy(view.face?.windows.find((window) => frame >= window.start && frame < window.start + window.frames));
}

const told = (frame) => (view.pictures ? `${frame + 1} of ${view.times.length}` : clock(view.times[frame] ?? 0));

function drawExpressions(row) {
  const names = view.recording.expressions;
  const top = row ? names.reduce((best, name) => (row[name] > row[best] ? name : best), names[0]) : null;
  view.shown = view.explained ?? top ?? names[0];
  const items = names.map((name) => ({ label: name, detail: "", value: row ? `${(row[name] * 100).toFixed(0)} %` : "–", share: row?.[name] ?? 0 }));
  bars($("expressions"), items, {
    tag: "button",
    attributes: (i) => ({ role: "radio", "aria-checked": names[i] === view.shown }),
    onpick: (i) => { view.explained = view.explained === names[i] ? null : names[i]; goTo(view.frame); },
  });
}

function drawWhy(window) {
  $("why-name").textContent = view.shown ?? "";
  const parts = window ? Object.entries(window.why[view.shown] ?? {}) : [];
  const titles = new Map(view.recording.aus.map(({ code, name }) => [code, name]));
  const most = Math.max(1e-9, ...parts.map(([, value]) => Math.abs(value)));
  const items = parts.sort((a, b) => b[1] - a[1]).slice(0, 8)
    .map(([code, value]) => ({ label: code, detail: titles.get(code) ?? "", value: value.toFixed(3), share: Math.abs(value) / most }));
  bars($("why"), items.length ? items : [{ label: "no face here", detail: "", value: "", share: 0 }]);
}

function drawBoxes() {
  const rows = view.faces.map((face) => face.rows[view.frame]).filter(Boolean);
  const { width, height } = view.pictures ? { width: $("picture").naturalWidth, height: $("picture").naturalHeight } : view.recording.start.video;
  boxes($("overlay"), rows, width, height, view.face?.id);
}

function showPicture(frame) {
  if (view.shownPicture === frame) return;
  view.shownPicture = frame;
  if (view.url) URL.revokeObjectURL(view.url);
  view.url = URL.createObjectURL(view.files[frame]);
  $("picture").onload = drawBoxes;
  $("picture").src = view.url;
  $("picture").alt = view.files[frame].name;
}

// -- player and slider -----------------------------------------------------------------------------------------------

function seek(frame) {
  const video = $("video");
  if (!view.pictures && video.readyState > 0) { video.pause(); video.currentTime = view.times[frame] + 0.001; }
  goTo(frame);
}

/** The last frame shown at `seconds`. */
function frameAt(seconds) {
  let low = 0, high = view.times.length - 1;
  while (low < high) { const middle = (low + high + 1) >> 1; if (view.times[middle] <= seconds + 0.002) low = middle; else high = middle - 1; }
  return low;
}

$("scrub").addEventListener("input", () => seek(Number($("scrub").value)));
$("video").addEventListener("error", () => { if (view && !view.pictures && $("video").src) show("unplayable", true); });
$("video").addEventListener("loadeddata", () => drawBoxes());
addEventListener("resize", () => { if (view) drawBoxes(); });
(function follow() {
  const video = $("video");
  if (view && !view.pictures && !video.paused) { const frame = frameAt(video.currentTime); if (frame !== view.frame) goTo(frame); }
  requestAnimationFrame(follow);
})();

// -- downloads and leaving ---------------------------------------------------------------------------------------------

function download(text, type, ending) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const stem = view.files.length > 1 ? "pictures" : view.files[0].name;
  Object.assign(document.createElement("a"), { href: url, download: `${stem}.${ending}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

$("csv").addEventListener("click", () => download(view.recording.csv(), "text/csv", "csv"));
$("json").addEventListener("click", () => download(view.recording.json(), "application/json", "json"));
$("again").addEventListener("click", () => {
  if (view.url) URL.revokeObjectURL(view.url);
  $("video").removeAttribute("src");
  $("video").load();
  view = null;
  show("result", false);
  show("start", true);
  $("file").focus();
});

fetch("v1/model", { headers: $("token").value ? { Authorization: `Bearer ${$("token").value}` } : {} })
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(answer.status)))
  .then(({ name, version }) => { $("model").textContent = `model ${name}, ${version.slice(0, 10)}`; })
  .catch((status) => show("token-box", status === 401));
