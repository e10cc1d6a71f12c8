// The panels of one moment, shared by player and camera: expression, why, action units, pose; and the same in words.
import { bars } from "./charts.js";

const $ = (id) => document.getElementById(id);
const percent = (value) => `${(value * 100).toFixed(0)} %`;

/** Show a row and its window of a `model` (aus, expressions). Returns what is explained, which `explained` may choose. */
export function showMoment(model, row, window, explained, choose) {
  const names = model.expressions;
  for (const id of ["expression-card", "why-card"]) $(id).hidden = !names.length;
  const shown = explained ?? likeliest(names, row) ?? names[0];
  const items = names.map((name) => ({ label: name, detail: "", value: row ? percent(row[name]) : "–", share: row?.[name] ?? 0 }));
  bars($("expressions"), items, { radio: (i) => choose(names[i]), chosen: names.indexOf(shown) });
  showWhy(model, shown, window);
  const units = model.aus.map(({ code, name }) => ({
    label: code, detail: name, value: row ? percent(row[code]) : "–", share: row?.[code] ?? 0, strong: Boolean(row?.[`${code}_c`]),
  }));
  bars($("units"), units);
  $("affect-now").textContent = inAffect(model, row);
  $("pose").textContent = inAngles(row);
}

/** What each AU adds to an expression, and what it takes away: the eight strongest either way. */
function showWhy(model, name, window) {
  $("why-name").textContent = name ?? "";
  const titles = new Map(model.aus.map((unit) => [unit.code, unit.name]));
  const parts = Object.entries(window?.why[name] ?? {}).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1])).slice(0, 8);
  const most = Math.max(1e-9, ...parts.map(([, value]) => Math.abs(value)));
  const items = parts.map(([code, value]) => ({ label: code, detail: titles.get(code) ?? "", value: signed(value), share: value / most }));
  bars($("why"), items.length ? items : [{ label: "no face here", detail: "", value: "", share: 0 }], { signed: true });
}

const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
const likeliest = (names, row) => (row && names.length ? names.reduce((best, name) => (row[name] > row[best] ? name : best), names[0]) : null);

/** Valence and arousal, of models that read them. */
function inAffect(model, row) {
  return row ? (model.affect ?? []).map((name) => `${name} ${row[name] < 0 ? "−" : "+"}${Math.abs(row[name]).toFixed(2)}`).join(", ") : "";
}

function inAngles(row) {
  if (!row || row.Yaw === null || row.Yaw === undefined) return "";
  const angles = ["Yaw", "Pitch", "Roll"].map((name) => `${name.toLowerCase()} ${Math.round(row[name])}°`).join(", ");
  return `Head: ${angles}${row.FaceQuality === null ? "" : `; quality ${percent(row.FaceQuality)}`}`;
}

/** One moment as a sentence, for who asks for it. */
export function inWords(model, row, when) {
  if (!row) return `${when}: no face.`;
  const present = model.aus.filter(({ code }) => row[`${code}_c`]).map(({ code, name }) => `${code} ${name}`);
  const withheld = model.aus.filter(({ code }) => row[`${code}_c`] === null).map(({ code }) => code);
  const name = likeliest(model.expressions, row), affect = inAffect(model, row);
  const expression = name ? `Expression ${name}, ${percent(row[name])}. ` : "";
  return `${when}, face ${row.face_id}. ${expression}Present: ${present.join(", ") || "no action unit"}. ${withheld.length ? `Not answered: ${withheld.join(", ")}. ` : ""}${affect ? `${affect}. ` : ""}${inAngles(row)}`;
}
