// Shows one recording beside its video, pictures or nothing: faces, timelines, tables, notes. Follows it while it grows.
import { boxes, clock, thumbnail, timeline } from "./charts.js";
import { Notes } from "./notes.js";
import { inWords, showMoment } from "./now.js";
import { fillAverages, fillMoments } from "./tables.js";
import { heatMaps } from "./where.js";

const $ = (id) => document.getElementById(id);
const show = (id, visible) => { $(id).hidden = !visible; };
const SPACING_MS = 400; // between two looks at a recording that grows

const charts = {
  expression: timeline($("expression-rows"), "Expression over time", (frame) => current?.seek(frame), (frame) => current?.told(frame) ?? ""),
  affect: timeline($("affect-rows"), "Valence and arousal over time", (frame) => current?.seek(frame), (frame) => current?.told(frame) ?? ""),
  aus: timeline($("au-rows"), "Action units over time", (frame) => current?.seek(frame), (frame) => current?.told(frame) ?? ""),
};
let current = null; // the view that is shown

/** A recording and what it was made of: `files` (none for a camera), `playable`: whether the browser shows them. */
export class View {
  constructor(recording, title, files, playable) {
    Object.assign(this, { recording, title, files, playable, notes: new Notes(), frame: 0, face: null, explained: null, url: null, timer: null });
  }

  get kind() { return !this.files.length ? "nothing" : !this.playable ? "frames" : this.recording.start.video.kind === "pictures" ? "pictures" : "video"; }

  open() {
    current?.close();
    current = this;
    $("title").textContent = this.title;
    for (const id of ["video", "play"]) show(id, this.kind === "video");
    show("picture", this.kind === "pictures" || this.kind === "frames");
    show("unplayable", this.kind === "frames");
    for (const id of ["screen", "thumbnail", "blur-box"]) show(id, this.kind !== "nothing");
    $("told").textContent = "";
    show("expression-over", this.recording.expressions.length > 0);
    show("affect-over", this.recording.affect.length > 0);
    show("doubt-legend", Boolean(this.recording.start.model.uncertainty));
    $("notice").textContent = this.recording.start.model.notice;
    if (this.kind === "video") { this.url = URL.createObjectURL(this.files[0]); $("video").src = this.url; }
    this.update(true);
    this.goTo(this.frame);
  }

  close() {
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = null;
    this.shownPicture = this.shownMaps = undefined;
    $("video").removeAttribute("src");
    $("video").load();
    current = null;
  }

  /** Look at the recording again: it has grown, or ended (`now`). */
  update(now = false) {
    if (current !== this) return;
    if (!now) { this.timer ??= setTimeout(() => this.update(true), SPACING_MS); return; }
    clearTimeout(this.timer);
    this.timer = null;
    $("scrub").max = Math.max(0, this.recording.frames - 1);
    this.listFaces();
    $("facts").textContent = this.facts();
    this.drawCharts();
    this.drawMaps();
    this.goTo(this.frame);
  }

  facts() {
    const { start, read, frames, ended } = this.recording, video = start.video, unit = video?.kind === "pictures" ? "picture" : "frame";
    const rate = video?.rate ? `, ${Math.round(video.rate * 10) / 10} frames/s` : "";
    const size = !video || video.kind === "pictures" ? "" : `, ${video.width} × ${video.height}${rate}`;
    const people = this.faces.length === 0 ? "no face found" : this.faces.length === 1 ? "1 face" : `${this.faces.length} faces`;
    const notes = video?.notes?.length ? `; ${video.notes.join("; ")}` : "";
    return `${ended ? frames : `${read} of ${frames}`} ${unit}${frames === 1 ? "" : "s"}${size}; ${people}${ended ? "" : " so far"}${notes}`;
  }

  listFaces() {
    this.faces = this.recording.byLength();
    if (!this.faces.includes(this.face)) this.face = this.faces[0] ?? null;
    show("face-choice", this.faces.length > 1);
    const ids = this.faces.map(({ id }) => id).join();
    if ($("face").dataset.ids !== ids) {
      $("face").dataset.ids = ids;
      $("face").replaceChildren(...this.faces.map(({ id }) => new Option("", id)));
    }
    this.faces.forEach((face, i) => { $("face").options[i].text = `${this.named(face)}: ${face.count}`; });
    if (this.face) $("face").value = this.face.id;
  }

  /** Between pictures nobody is followed: face 0 of one and of the next may be two people. */
  named({ id }) { return this.recording.start.video.kind === "pictures" ? `Face ${id} of each picture` : `Face ${id}`; }

  choose(id) {
    this.face = this.faces.find((face) => face.id === Number(id)) ?? null;
    this.explained = null;
    const first = this.face?.rows.findIndex(Boolean) ?? 0;
    if (this.face && !this.face.rows[this.frame]) this.seek(first);
    this.update(true);
  }

  drawCharts() {
    const { recording, face } = this, { aus, expressions, affect, frames } = recording;
    const doubtful = recording.start.model.uncertainty;
    const series = (name) => Float32Array.from({ length: frames }, (_, i) => face?.rows[i]?.[name] ?? NaN);
    const flags = (name) => Uint8Array.from({ length: frames }, (_, i) => face?.rows[i]?.[name] ?? 0);
    const named = expressions.map((name) => ({ label: name, detail: "", values: series(name), present: null }));
    const units = aus.map(({ code, name }) => ({ label: code, detail: name, values: series(code), present: flags(`${code}_c`), doubts: doubtful ? series(`${code}_u`) : null }));
    const moods = affect.map((name) => ({ label: name, detail: "", values: series(name), present: null, signed: true }));
    charts.expression.set(named, frames, this.notes.facts());
    charts.affect.set(moods, frames, this.notes.facts());
    charts.aus.set(units, frames, this.notes.facts());
    this.listNotes();
    this.fillTables();
  }

  /** Where each AU of the face was looked for, once that was told: after the last row. */
  async drawMaps() {
    const { face, recording } = this, blur = $("blur").checked, key = `${face?.id} ${blur}`;
    show("where-card", Boolean(face?.where));
    if (!face?.where || this.shownMaps === key) return;
    this.shownMaps = key;
    const still = this.kind === "video" ? await loaded(this.url) : null;
    const wanted = () => current === this && this.shownMaps === key;
    if (wanted()) await heatMaps($("where"), recording.aus, face.where, { pictureAt: (frame) => this.pictureAt(frame, still), told: (frame) => this.told(frame), blur, wanted });
  }

  /** The picture of a frame, and its width in the rows' pixels; of a video from `still`, which is another look at it. */
  async pictureAt(frame, still) {
    const { video } = this.recording.start;
    if (this.kind === "video") return { picture: await soughtTo(still, this.recording.time(frame) + 0.001), width: video.width };
    if (this.kind === "frames") return { picture: await imageOf(this.recording.pictures.findLast((one) => one.frame <= frame).url), width: video.width };
    const picture = await createImageBitmap(this.files[frame]);
    return { picture, width: picture.width };
  }

  /** Filled when they are open to be read. */
  fillTables() {
    const { recording, face, notes } = this, told = (frame) => this.told(frame);
    const without = notes.excluded.length ? ", without the excluded ranges" : "";
    const caption = face ? `${this.named(face)}: ${face.count} frames${without}` : "No face";
    if ($("averages-box").open) fillAverages($("averages"), recording, face, caption, (frame) => notes.counts(frame), told);
    if ($("moments-box").open) fillMoments($("moments"), recording, face, told);
  }

  listNotes() {
    const { marks, excluded, open } = this.notes;
    const item = (text, note) => {
      const entry = document.createElement("li"), remove = document.createElement("button");
      Object.assign(remove, { type: "button", className: "plain small", textContent: "Remove" });
      remove.setAttribute("aria-label", `Remove ${text}`);
      remove.addEventListener("click", () => { this.notes.remove(note); this.update(true); });
      entry.append(text, remove);
      return entry;
    };
    $("notes").replaceChildren(
      ...marks.map((mark) => item(`${this.told(mark.frame)}: ${mark.text}`, mark)),
      ...excluded.map((range) => item(`${this.told(range.from)} to ${this.told(range.to)} excluded`, range)),
    );
    $("exclude").textContent = open === null ? "Exclude from here" : `Exclude ${this.told(open)} to here`;
  }

  /** Show the numbers of one frame; the player follows only where `seek` was asked for. */
  goTo(frame) {
    this.frame = frame;
    const row = this.face?.rows[frame];
    $("scrub").value = frame;
    $("scrub").setAttribute("aria-valuetext", this.told(frame));
    $("clock").textContent = this.told(frame);
    charts.expression.draw(frame);
    charts.affect.draw(frame);
    charts.aus.draw(frame);
    if (this.kind === "pictures" || this.kind === "frames") this.showPicture(frame);
    this.drawBoxes();
    const window = this.face?.windows.find((one) => frame >= one.start && frame < one.start + one.frames);
    showMoment(this.recording.start.model, row, window, this.explained, (name) => { this.explained = name; this.goTo(this.frame); });
  }

  seek(frame) {
    const video = $("video");
    if (this.kind === "video" && video.readyState > 0) { video.pause(); video.currentTime = this.recording.time(frame) + 0.001; }
    this.goTo(frame);
  }

  told(frame) {
    const video = this.recording.start.video;
    return video?.kind === "pictures" ? `${frame + 1} of ${this.recording.frames}` : clock(this.recording.time(frame));
  }

  words() { return inWords(this.recording.start.model, this.face?.rows[this.frame], this.told(this.frame)); }

  drawBoxes() {
    if (this.kind === "nothing") return;
    const rows = this.faces.map((face) => face.rows[this.frame]).filter(Boolean), video = this.recording.start.video;
    const picture = this.kind === "video" ? $("video") : $("picture");
    const several = video.kind === "pictures" && this.kind === "pictures"; // each has a size of its own
    const { width, height } = several ? { width: picture.naturalWidth, height: picture.naturalHeight } : video;
    const hidden = $("blur").checked ? picture : null;
    boxes($("overlay"), rows, width, height, { chosen: this.face?.id, hidden, unread: this.frame >= this.recording.read });
    thumbnail($("thumbnail"), picture, this.face?.rows[this.frame], width, $("blur").checked);
  }

  /** The file itself, or what the server shows of it: the last picture up to this frame. */
  showPicture(frame) {
    const at = this.kind === "pictures" ? frame : this.recording.pictures.findLastIndex((one) => one.frame <= frame);
    if (at < 0 || this.shownPicture === at) return;
    this.shownPicture = at;
    if (this.url) URL.revokeObjectURL(this.url);
    this.url = this.kind === "pictures" ? URL.createObjectURL(this.files[at]) : null;
    $("picture").src = this.url ?? this.recording.pictures[at].url;
    $("picture").alt = this.kind === "pictures" ? this.files[at].name : `Frame ${this.recording.pictures[at].frame}`;
  }
}

// -- the controls that belong to whichever view is shown ---------------------------------------------------------------

$("scrub").addEventListener("input", () => current?.seek(Number($("scrub").value)));
$("face").addEventListener("change", () => current?.choose($("face").value));
$("blur").addEventListener("change", () => { current?.drawBoxes(); current?.drawMaps(); });
$("play").addEventListener("click", () => { if ($("video").paused) $("video").play(); else $("video").pause(); });
for (const event of ["play", "pause"]) $("video").addEventListener(event, () => { $("play").textContent = event === "play" ? "Pause" : "Play"; });
$("video").addEventListener("loadeddata", () => current?.drawBoxes());
$("video").addEventListener("seeked", () => current?.drawBoxes());
$("picture").addEventListener("load", () => current?.drawBoxes());
for (const id of ["averages-box", "moments-box"]) $(id).addEventListener("toggle", () => current?.fillTables());
addEventListener("resize", () => current?.drawBoxes());
$("tell").addEventListener("click", () => { if (current) $("told").textContent = current.words(); });
$("mark").addEventListener("click", () => {
  if (!current) return;
  current.notes.mark(current.frame, $("mark-text").value);
  $("mark-text").value = "";
  current.update(true);
});
$("mark-text").addEventListener("keydown", (event) => { if (event.key === "Enter") $("mark").click(); });
$("exclude").addEventListener("click", () => { current?.notes.exclude(current.frame); current?.update(true); });
(function follow() {
  const video = $("video");
  const frame = current?.kind === "video" && !video.paused ? current.recording.frameAt(video.currentTime) : current?.frame;
  if (frame !== current?.frame) current.goTo(frame);
  requestAnimationFrame(follow);
})();

/** The table of the view that is shown, with its notes, as a file. */
export function download(kind) {
  if (!current) return;
  const { recording, notes, title } = current;
  const [text, type] = kind === "csv" ? [recording.csv(notes.facts()), "text/csv"] : [recording.json(notes.facts()), "application/json"];
  const url = URL.createObjectURL(new Blob([text], { type }));
  Object.assign(document.createElement("a"), { href: url, download: `${title}.${kind}` }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

const once = (element, event) => new Promise((done) => element.addEventListener(event, done, { once: true }));

/** A video that is not shown, to take pictures from while the other plays on. */
async function loaded(url) {
  const video = Object.assign(document.createElement("video"), { muted: true, preload: "auto" }), ready = once(video, "loadeddata");
  video.src = url;
  await ready;
  return video;
}

async function soughtTo(video, seconds) {
  const ready = once(video, "seeked");
  video.currentTime = seconds;
  await ready;
  return video;
}

async function imageOf(url) {
  const image = Object.assign(new Image(), { src: url });
  await image.decode();
  return image;
}

/** No view any more. */
export const closeView = () => current?.close();
