// The same numbers as tables: averages of a face, and its timelines for who reads rather than sees.

const percent = (value) => `${(value * 100).toFixed(0)} %`;
const MOMENTS = 60; // so many can be read through

function cell(tag, text, scope) {
  const made = Object.assign(document.createElement(tag), { textContent: text });
  if (scope) made.scope = scope;
  return made;
}

function line([head, ...values]) {
  const row = document.createElement("tr");
  row.append(cell("th", head, "row"), ...values.map((text) => cell("td", text)));
  return row;
}

const plain = (value) => value.toFixed(2);

/** Columns of a recording that are shown, what they are called, and how a value is written. */
const shown = ({ expressions, affect, aus }) => [
  ...expressions.map((name) => [name, name, percent]), ...affect.map((name) => [name, name, plain]), ...aus.map(({ code, name }) => [code, `${code} ${name}`, percent]),
];

/** Mean, share of frames present and highest value of every expression and AU, over the frames that `counts(frame)`. */
export function fillAverages(table, recording, face, caption, counts, told) {
  table.caption.textContent = caption;
  table.tBodies[0].replaceChildren(...shown(recording).map(([column, label, words]) => {
    const of = face && recording.summary(face, column, counts);
    if (!of) return line([label, "–", "", "–"]);
    const present = !column.startsWith("AU") ? "" : Number.isNaN(of.present) ? "withheld" : percent(of.present);
    return line([label, words(of.mean), present, `${words(face.rows[of.most][column])} at ${told(of.most)}`]);
  }));
}

/** A row for each of some moments, evenly spread. */
export function fillMoments(table, recording, face, told) {
  const columns = shown(recording);
  const step = Math.max(1, Math.ceil(recording.read / MOMENTS));
  const frames = Array.from({ length: Math.ceil(recording.read / step) }, (_, i) => i * step);
  const value = (frame, [column, , words]) => (face?.rows[frame] ? words(face.rows[frame][column]) : "–");
  table.tHead.rows[0].replaceChildren(...["Time", ...columns.map(([column]) => column)].map((text) => cell("th", text, "col")));
  table.tBodies[0].replaceChildren(...frames.map((frame) => line([told(frame), ...columns.map((column) => value(frame, column))])));
}
