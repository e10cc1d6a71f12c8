// The camera: its pictures go to the service one by one, what is seen in them comes back; recorded where asked for.
import { boxes, thumbnail } from "./charts.js";
import { inWords, showMoment } from "./now.js";
import { Recording } from "./recording.js";
import { liveSocket } from "./stream.js";

const $ = (id) => document.getElementById(id);
const UNDER_WAY = 2; // frames that were sent and not answered: the service works on two at once
const WIDTH = 640, QUALITY = 0.8;

const REASONS = {
  NotAllowedError: "The camera was refused. Allow it for this page in the browser (beside the address), then try again.",
  NotFoundError: "There is no camera here.",
  NotReadableError: "The camera is in use by another program.",
};

/** Open the camera; Error in words where that does not work. */
export async function openCamera() {
  if (!navigator.mediaDevices) throw new Error("A browser gives its camera only to pages at localhost or over https.");
  try {
    return await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: WIDTH }, height: { ideal: 480 } }, audio: false });
  } catch (error) {
    throw new Error(REASONS[error.name] ?? `The camera cannot be used (${error.message}).`);
  }
}

/** One session. `started()` when the service has let it in; `ended(problem)` once, with null where the user ended it. */
export class Live {
  constructor(stream, { options, token, started, ended }) {
    Object.assign(this, { stream, started, ended, start: null, recording: null, explained: null, chosen: null, last: null });
    Object.assign(this, { sent: 0, answered: -1, taken: 0, sentAt: new Map(), answers: [], over: false, busy: false });
    this.frame = document.createElement("canvas");
    this.video = $("video");
    this.video.srcObject = stream;
    this.video.play();
    stream.getVideoTracks()[0].addEventListener("ended", () => this.stop("The camera was taken away."));
    this.socket = liveSocket(options, token);
    this.socket.addEventListener("message", (message) => this.#heard(JSON.parse(message.data)));
    this.socket.addEventListener("close", () => this.stop(this.start ? "The connection to the server was lost." : "The server did not let the camera in."));
    this.listeners = new AbortController();
    $("face").addEventListener("change", () => { this.chosen = Number($("face").value); }, { signal: this.listeners.signal });
  }

  /** Record from now on; the recording is `recording`. */
  record() {
    const { width, height } = this.frame;
    this.recording = new Recording({ ...this.start, video: { kind: "camera", frames: 0, rate: null, width, height, notes: [] } });
    this.recordedFrom = null;
  }

  stop(problem = null) {
    if (this.over) return;
    this.over = true;
    this.listeners.abort();
    this.socket.close();
    for (const track of this.stream.getTracks()) track.stop();
    this.video.srcObject = null;
    if (this.recording) this.recording.ended = true;
    this.ended(problem);
  }

  words() { return this.start ? inWords(this.start.model, this.row, "Now") : "Not started yet."; }

  #heard({ type, ...facts }) {
    if (type === "start") { this.start = facts; this.started(facts); this.#send(); }
    else if (type === "error") this.stop(facts.error);
    else if (type === "frame") this.#seen(facts);
  }

  /** The newest picture, as soon as the service can take it. */
  async #send() {
    if (this.over) return;
    const ready = this.video.readyState >= 2 && this.sent - this.answered - 1 < UNDER_WAY && !this.busy;
    if (ready) {
      this.busy = true;
      const scale = Math.min(1, WIDTH / Math.max(this.video.videoWidth, this.video.videoHeight));
      const size = { width: Math.round(this.video.videoWidth * scale), height: Math.round(this.video.videoHeight * scale) };
      const picture = Object.assign(document.createElement("canvas"), size);
      picture.getContext("2d").drawImage(this.video, 0, 0, picture.width, picture.height);
      const blob = await new Promise((done) => picture.toBlob(done, "image/jpeg", QUALITY));
      this.busy = false;
      if (this.over || this.socket.readyState !== WebSocket.OPEN) return;
      this.sentAt.set(this.sent, { picture, at: performance.now() });
      this.sent += 1;
      this.socket.send(blob);
    }
    setTimeout(() => this.#send(), 10); // a page in the background is slowed down by the browser, and that is well
  }

  #seen(answer) {
    this.taken += 1;
    this.socket.send(JSON.stringify({ taken: this.taken }));
    const { picture, at } = this.sentAt.get(answer.frame), now = performance.now();
    for (const number of this.sentAt.keys()) if (number <= answer.frame) this.sentAt.delete(number);
    this.answered = answer.frame;
    this.answers = [...this.answers.filter((one) => now - one.now < 2000), { now, ms: now - at }];
    if (answer.error) { $("rate").textContent = answer.error; return; }
    this.frame = picture;
    if (this.recording) this.#keep(answer);
    this.#draw(answer);
  }

  #draw({ rows, windows, width, height }) {
    const faces = rows.filter((row) => row.success), area = (row) => row.FaceRectWidth * row.FaceRectHeight;
    const largest = faces.reduce((best, row) => (best && area(best) >= area(row) ? best : row), null);
    this.row = faces.find((row) => row.face_id === this.chosen) ?? largest;
    this.#listFaces(faces);
    boxes($("overlay"), faces, width, height, { chosen: this.row?.face_id, hidden: $("blur").checked ? this.frame : null });
    thumbnail($("thumbnail"), this.frame, this.row, width, $("blur").checked);
    const window = windows.find((one) => one.face_id === this.row?.face_id);
    showMoment(this.start.model, this.row, window, this.explained, (name) => { this.explained = name; });
    const times = this.answers.map(({ ms }) => ms).sort((a, b) => a - b), since = (this.answers.at(-1).now - this.answers[0].now) / 1000;
    const rate = since ? `${((this.answers.length - 1) / since).toFixed(1)} frames/s, ` : "";
    $("rate").textContent = `${rate}${Math.round(times[times.length >> 1])} ms${this.recording ? `; ${this.recording.read} frames recorded` : ""}`;
  }

  #listFaces(faces) {
    const ids = faces.map((row) => row.face_id).join();
    $("face-choice").hidden = faces.length < 2;
    if ($("face").dataset.ids === `live ${ids}`) return;
    $("face").dataset.ids = `live ${ids}`;
    $("face").replaceChildren(...faces.map(({ face_id: id }) => new Option(`Face ${id}`, id)));
    if (this.row) $("face").value = this.row.face_id;
  }

  /** Frames that were answered are numbered one after another, from the first that was recorded. */
  #keep(answer) {
    this.recordedFrom ??= answer.timestamp;
    const frame = this.recording.read, timestamp = Math.round((answer.timestamp - this.recordedFrom) * 1e5) / 1e5;
    for (const row of answer.rows) this.recording.add({ type: "row", ...row, frame, timestamp });
    for (const window of answer.windows) this.recording.add({ type: "window", ...window, start: Math.max(0, frame - window.frames + 1) });
  }
}
