// Sends files, reads the answer line by line as it comes, keeps rows by face. Knows the API, not the page.

export class Cancelled extends Error {}
export class NeedsToken extends Error {}

/** Upload `files`; `seen(progress)` gets {sent, frames, total}. Resolves to a Recording. */
export function analyse(files, { faces, token, signal, seen }) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    for (const file of files) form.append("file", file, file.name);
    const request = new XMLHttpRequest();
    const reader = new LineReader();
    const report = () => seen({ ...reader.recording.progress(), sent: reader.sent });
    request.open("POST", `v1/predict?faces=${faces}`);
    request.setRequestHeader("Accept", "application/x-ndjson");
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    request.upload.onprogress = (event) => { reader.sent = event.loaded / (event.total || 1); report(); };
    request.onprogress = () => { if (request.status === 200) { reader.read(request.responseText); report(); } };
    request.onload = () => {
      if (request.status === 401) return reject(new NeedsToken(message(request)));
      if (request.status !== 200) return reject(new Error(message(request)));
      reader.read(request.responseText);
      const problem = reader.recording.problem();
      return problem ? reject(new Error(problem)) : resolve(reader.recording);
    };
    request.onerror = () => reject(new Error("The connection to the server was lost. Try again."));
    request.onabort = () => reject(new Cancelled());
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

function message(request) {
  const wait = request.getResponseHeader("Retry-After");
  let text = `The server answered ${request.status}.`;
  try { text = JSON.parse(request.responseText).error ?? text; } catch { /* not JSON: the status has to do */ }
  return wait ? `${text} (busy: wait ${wait} s)` : text;
}

class LineReader {
  constructor() { this.offset = 0; this.sent = 0; this.recording = new Recording(); }
  read(text) {
    for (let end; (end = text.indexOf("\n", this.offset)) >= 0; this.offset = end + 1) {
      const line = text.slice(this.offset, end);
      if (line) this.recording.add(JSON.parse(line));
    }
  }
}

/** Everything the server said about one upload. */
export class Recording {
  constructor() { this.start = null; this.rows = []; this.windows = []; this.end = null; this.error = null; this.last = -1; }

  add(event) {
    if (event.type === "start") this.start = event;
    else if (event.type === "row") { this.last = event.frame; delete event.type; this.rows.push(event); }
    else if (event.type === "window") { delete event.type; this.windows.push(event); }
    else if (event.type === "end") this.end = event;
    else if (event.type === "error") this.error = event.error;
  }

  progress() { return { frames: this.last + 1, total: this.start?.video.frames ?? 0 }; }
  problem() { return this.error ?? (this.end ? null : "The answer ended early. Try again."); }
  get frames() { return this.last + 1; }
  get aus() { return this.start.model.aus; }
  get expressions() { return this.start.model.expressions; }

  /** Faces with the most frames first: {id, rows: [row by frame or undefined], windows}. */
  faces() {
    const faces = new Map();
    const face = (id) => {
      if (!faces.has(id)) faces.set(id, { id, rows: new Array(this.frames), windows: [], count: 0 });
      return faces.get(id);
    };
    for (const row of this.rows) if (row.success) { const f = face(row.face_id); f.rows[row.frame] = row; f.count += 1; }
    for (const window of this.windows) face(window.face_id).windows.push(window);
    return [...faces.values()].sort((a, b) => b.count - a.count);
  }

  /** Seconds of each frame, from whichever row of it came first. */
  times() {
    const times = new Float64Array(this.frames);
    for (const row of this.rows) times[row.frame] = row.timestamp ?? row.frame;
    return times;
  }

  csv() {
    const columns = this.start.columns;
    const cell = (value) => (value === null || value === undefined ? "" : String(value));
    return [columns.join(","), ...this.rows.map((row) => columns.map((name) => cell(row[name])).join(","))].join("\n") + "\n";
  }

  json() {
    const { type, ...start } = this.start;
    return JSON.stringify({ ...start, rows: this.rows, windows: this.windows });
  }
}
