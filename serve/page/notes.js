// What a person notes on a timeline: marks with words, and ranges that do not count. They go into the download.

export class Notes {
  constructor() { this.marks = []; this.excluded = []; this.open = null; }

  mark(frame, text) { this.marks.push({ frame, text: text.trim() || "mark" }); this.marks.sort((a, b) => a.frame - b.frame); }

  /** The first call begins a range, the second ends it. */
  exclude(frame) {
    if (this.open === null) { this.open = frame; return; }
    const [from, to] = [this.open, frame].sort((a, b) => a - b);
    this.excluded.push({ from, to });
    this.excluded.sort((a, b) => a.from - b.from);
    this.open = null;
  }

  remove(item) {
    this.marks = this.marks.filter((mark) => mark !== item);
    this.excluded = this.excluded.filter((range) => range !== item);
  }

  counts(frame) { return !this.excluded.some(({ from, to }) => frame >= from && frame <= to); }
  facts() { return { marks: this.marks, excluded: this.excluded }; }
}
