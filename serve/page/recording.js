// What the server said of one input, kept by face: grows while lines come. Knows the API's words, not the page.

/** Rows and windows of one upload, or of a camera while it was recorded. */
export class Recording {
  constructor(start = null) {
    this.start = start;
    this.rows = [];
    this.windows = [];
    this.where = []; // {face_id, aus}: heat maps, of models that know them
    this.pictures = []; // {frame, url}: of what the browser cannot play
    this.faces = new Map(); // id -> {id, rows: [row by frame or undefined], windows, count, where}
    this.times = []; // seconds by frame
    this.ended = false;
  }

  /** One line of the answer. */
  add(event) {
    const { type, ...facts } = event;
    if (type === "start") this.start = facts;
    else if (type === "row") this.#row(facts);
    else if (type === "window") { this.windows.push(facts); this.#face(facts.face_id).windows.push(facts); }
    else if (type === "where") { this.where.push(facts); this.#face(facts.face_id).where = facts.aus; }
    else if (type === "picture") this.pictures.push({ frame: facts.frame, url: `data:image/jpeg;base64,${facts.jpeg}` });
    else if (type === "end") this.ended = true;
    else if (type === "error") throw new Error(facts.error);
  }

  /** Frames that were read so far, and that there will be. */
  get read() { return this.times.length; }
  get frames() { return this.ended ? this.read : Math.max(this.read, this.start.video?.frames ?? 0); }
  get aus() { return this.start.model.aus; }
  get expressions() { return this.start.model.expressions; }
  get affect() { return this.start.model.affect ?? []; }

  /** Seconds of a frame; of one that was not read yet, as far as the rate says. */
  time(frame) { return this.times[frame] ?? frame / (this.start.video?.rate ?? 1); }

  /** The last frame shown at `seconds`. */
  frameAt(seconds) {
    let low = 0, high = this.read - 1;
    while (low < high) { const middle = (low + high + 1) >> 1; if (this.times[middle] <= seconds + 0.002) low = middle; else high = middle - 1; }
    return Math.max(0, low);
  }

  /** Faces, those of the most frames first. */
  byLength() { return [...this.faces.values()].filter((face) => face.count).sort((a, b) => b.count - a.count); }

  /** Mean, share of answered frames present (NaN without any) and highest value of a column over a face's frames that `counts(frame)`. */
  summary(face, name, counts = () => true) {
    let total = 0, present = 0, answered = 0, frames = 0, most = null;
    face.rows.forEach((row, frame) => {
      if (!row || !counts(frame)) return;
      frames += 1;
      total += row[name];
      present += row[`${name}_c`] ?? 0;
      answered += (row[`${name}_c`] ?? null) !== null; // an answer may be withheld
      if (most === null || row[name] > face.rows[most][name]) most = frame;
    });
    return frames ? { mean: total / frames, present: present / answered, most, frames } : null;
  }

  csv({ marks, excluded }) {
    const columns = this.start.columns;
    const noted = marks.length || excluded.length;
    const cell = (value) => (value === null || value === undefined ? "" : String(value));
    const quoted = (text) => (/[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
    const notes = (row) => [quoted(marks.filter((mark) => mark.frame === row.frame).map((mark) => mark.text).join("; ")), +isIn(excluded, row.frame)];
    const line = (row) => [...columns.map((name) => cell(row[name])), ...(noted ? notes(row) : [])].join(",");
    return `${[...columns, ...(noted ? ["mark", "excluded"] : [])].join(",")}\n${this.rows.map(line).join("\n")}\n`;
  }

  json(notes) { return JSON.stringify({ ...this.start, ...notes, rows: this.rows, windows: this.windows, ...(this.start.model.where ? { where: this.where } : {}) }); }

  #face(id) {
    if (!this.faces.has(id)) this.faces.set(id, { id, rows: [], windows: [], count: 0 });
    return this.faces.get(id);
  }

  #row(row) {
    this.rows.push(row);
    this.times[row.frame] = row.timestamp ?? row.frame;
    if (!row.success) return;
    const face = this.#face(row.face_id);
    face.rows[row.frame] = row;
    face.count += 1;
  }
}

/** Whether a frame lies in one of the ranges {from, to}, both ends included. */
export const isIn = (ranges, frame) => ranges.some(({ from, to }) => frame >= from && frame <= to);
