// The page: files into a queue, one at a time to the service, each with a view of its own; the camera beside them.
import { Live, openCamera } from "./live.js";
import { Recording } from "./recording.js";
import { analyse, Cancelled, model, Refused } from "./stream.js";
import { closeView, download, View } from "./view.js";

const $ = (id) => document.getElementById(id);
const show = (id, visible) => { $(id).hidden = !visible; };
const MOST_TRIES = 20; // of an upload that finds the service busy

const entries = []; // {title, files, state, view, controller}: what was handed in, in order
let working = null; // the entry that is sent or read
let shown = null; // the entry whose view is open
let live = null; // the camera
let doubts = "off"; // whether the model tells how little it knows
let maps = "off"; // whether it tells where it looks

const token = () => $("token").value.trim();
const options = () => { const chosen = new FormData($("form")); return { faces: chosen.get("faces"), expressions: chosen.get("expressions") ?? "off", uncertainty: doubts }; };

// -- handing in --------------------------------------------------------------------------------------------------------

$("file").addEventListener("change", () => { take([...$("file").files]); $("file").value = ""; });
$("form").addEventListener("submit", (event) => { event.preventDefault(); remember(); });
for (const name of ["dragenter", "dragover"]) addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.add("over"); });
for (const name of ["dragleave", "drop"]) addEventListener(name, (event) => { event.preventDefault(); $("drop").classList.remove("over"); });
addEventListener("drop", (event) => take([...event.dataTransfer.files]));

/** Pictures go together; every other file is a video of its own. */
function take(files) {
  const pictures = files.filter((file) => file.type.startsWith("image/"));
  if (pictures.length) add(pictures.length > 1 ? `${pictures.length} pictures` : pictures[0].name, pictures);
  for (const file of files) if (!pictures.includes(file)) add(file.name, [file]);
  work();
}

function add(title, files) {
  const entry = { title, files, state: "waiting", said: "waits", view: null, button: null };
  entries.push(entry);
  const line = $("list").appendChild(document.createElement("li"));
  entry.button = Object.assign(line.appendChild(document.createElement("button")), { type: "button", className: "plain" });
  entry.button.addEventListener("click", () => open(entry));
  say(entry, entry.said);
  show("list", true);
  $("drop").classList.add("less");
  return entry;
}

function say(entry, words) {
  entry.said = words;
  entry.button.textContent = `${entry.title}: ${words}`;
  entry.button.disabled = !entry.view;
  entry.button.setAttribute("aria-pressed", entry === shown);
}

/** The next entry that waits, until none does. */
async function work() {
  if (working) return;
  working = entries.find((entry) => entry.state === "waiting") ?? null;
  if (!working) return show("progress", false);
  fail(null);
  show("progress", true);
  await send(working);
  working = null;
  work();
}

/** Send until it is answered, refused for good, or given up; the files are kept whatever happens. */
async function send(entry) {
  const playable = await canShow(entry.files);
  for (let tries = 1; ; tries++) {
    entry.controller = new AbortController();
    const recording = new Recording(), signal = entry.controller.signal;
    const seen = (state) => { progress(state); look(entry, recording, playable, state); };
    try {
      await analyse(entry.files, recording, { options: { ...options(), pictures: playable ? "off" : "on", where: maps }, token: token(), signal, seen });
      entry.state = "done";
      entry.view.update(true);
      say(entry, "read");
      $("stage").textContent = `${entry.title} is read.`;
      return;
    } catch (error) {
      if (error instanceof Refused && error.status === 503 && tries < MOST_TRIES && await pause(error.retryAfter ?? 2, signal)) continue;
      entry.state = "failed";
      if (entry.view) { entry.view.recording.ended = true; entry.view.update(true); }
      const cancelled = error instanceof Cancelled || signal.aborted;
      say(entry, cancelled ? "cancelled" : `failed: ${error.message}`);
      if (!cancelled) fail(error.message, entry, error.status === 401);
      return;
    }
  }
}

/** Show what is there of an answer, from its first line on. */
function look(entry, recording, playable, { read, frames }) {
  if (!recording.start) return;
  if (entry.view?.recording !== recording) {
    const was = shown === entry;
    entry.view = new View(recording, entry.title, entry.files, playable);
    if (was || !shown) open(entry);
  }
  say(entry, frames ? `${read} of ${frames}` : `${read} frames`);
  entry.view.update();
}

/** Whether this browser can show the files itself. */
async function canShow(files) {
  if (files[0].type.startsWith("image/")) {
    const tried = await Promise.allSettled(files.map((file) => createImageBitmap(file)));
    for (const { value } of tried) value?.close();
    return tried.every(({ status }) => status === "fulfilled");
  }
  const probe = document.createElement("video"), url = URL.createObjectURL(files[0]);
  const answer = new Promise((done) => {
    probe.onloadedmetadata = () => done(probe.videoWidth > 0);
    probe.onerror = () => done(false);
    setTimeout(() => done(false), 4000);
  });
  Object.assign(probe, { preload: "metadata", src: url });
  return answer.finally(() => { probe.removeAttribute("src"); URL.revokeObjectURL(url); });
}

/** Wait, and say so; false where it was cancelled. */
async function pause(seconds, signal) {
  for (let left = seconds; left > 0 && !signal.aborted; left--) {
    $("stage").textContent = `The service is busy; trying again in ${left} s`;
    $("bar").removeAttribute("value");
    await new Promise((done) => setTimeout(done, 1000));
  }
  return !signal.aborted;
}

function progress({ sent, read, frames }) {
  const sending = sent < 1 && !frames, waiting = entries.filter((entry) => entry.state === "waiting").length - 1;
  const words = sending ? `Sending ${Math.round(sent * 100)} %` : frames ? "Reading" : "Waiting for the first frames";
  $("stage").textContent = `${words}${waiting > 0 ? `; ${waiting} more wait${waiting === 1 ? "s" : ""}` : ""}`; // no numbers: it is spoken
  if (sending || frames) $("bar").value = sending ? sent : read / frames;
  else $("bar").removeAttribute("value");
}

$("cancel").addEventListener("click", () => working?.controller?.abort());

/** What went wrong, and the way on: the same files again, after the token where one is needed. */
function fail(message, entry = null, needsToken = false) {
  $("error-words").textContent = message ?? "";
  show("error", message !== null);
  show("retry", Boolean(entry));
  $("error").toggleAttribute("data-token", needsToken && !entry);
  $("retry").onclick = () => { remember(); entry.state = "waiting"; say(entry, "waits"); work(); };
  if (needsToken) askForToken();
}

// -- token and model -----------------------------------------------------------------------------------------------------

$("token").value = sessionStorage.getItem("ssm-token") ?? "";

function askForToken() { show("token-box", true); $("token").focus(); }

function remember() {
  sessionStorage.setItem("ssm-token", token());
  greet();
}

/** Say which model answers and what the numbers are; ask for the token where one is needed. */
function greet() {
  model(token()).then(({ name, version, expressions, uncertainty, where, notice }) => {
    doubts = uncertainty ? "on" : "off";
    maps = where ? "on" : "off";
    $("model").textContent = `model ${name}, ${version.slice(0, 10)}`;
    $("notice").textContent = notice;
    if (!expressions.length) { // switched off by who runs the service
      $("off").checked = true;
      for (const choice of document.querySelectorAll("[name=expressions]")) choice.disabled = true;
    }
    if ($("error").hasAttribute("data-token")) fail(null); // it was needed and is there
  }).catch((error) => { if (error.status === 401) show("token-box", true); });
}

// -- showing ---------------------------------------------------------------------------------------------------------------

function open(entry) {
  live?.stop();
  shown = entry;
  show("result", true);
  for (const id of ["player", "later", "downloads"]) show(id, true);
  show("camera", false);
  entry.view.open();
  for (const other of entries) say(other, other.said);
}

for (const kind of ["csv", "json"]) $(kind).addEventListener("click", () => download(kind));

// -- camera ----------------------------------------------------------------------------------------------------------------

$("use-camera").addEventListener("click", async () => {
  fail(null);
  let stream = null;
  try { stream = await openCamera(); } catch (error) { return fail(error.message); }
  closeView();
  shown = null;
  for (const other of entries) say(other, other.said);
  $("title").textContent = "Camera";
  $("facts").textContent = "";
  for (const id of ["player", "later", "downloads", "picture", "unplayable"]) show(id, false);
  for (const id of ["result", "camera", "screen", "video", "thumbnail", "blur-box"]) show(id, true);
  $("told").textContent = "";
  $("record").textContent = "Record";
  const started = (start) => { $("notice").textContent = start.model.notice; $("record").disabled = false; };
  live = new Live(stream, { options: options(), token: token(), started, ended });
});

$("record").addEventListener("click", () => {
  if (live.recording) return live.stop();
  live.record();
  $("record").textContent = "Stop and look";
});
$("stop").addEventListener("click", () => live?.stop());

/** The session is over: what was recorded becomes an entry, with its downloads. */
async function ended(problem) {
  const { recording, start } = live;
  live = null;
  $("record").disabled = true;
  $("rate").textContent = "";
  show("camera", false);
  if (problem) {
    const status = start ? 0 : await model(token()).then(() => 0, (error) => error.status); // why, a browser does not say
    fail(status === 401 ? "A token is needed." : problem, null, status === 401);
  }
  if (recording?.read) {
    const entry = add(`camera ${new Date().toLocaleTimeString()}`, []);
    Object.assign(entry, { state: "done", view: new View(recording, entry.title, [], true) });
    say(entry, "recorded");
    open(entry);
  } else if (!shown) show("result", false);
}

$("tell").addEventListener("click", () => { if (live) $("told").textContent = live.words(); });

greet();
