// Where each action unit of a face was looked for: heat maps over the picture of its frame, and the same in words.
import { cut } from "./charts.js";

const SIDE = 112, MARKED = 4; // a map is in full colour from so many times an even share on; what looks everywhere stays dim
const ROWS = ["upper", "middle", "lower"], COLUMNS = ["left", "centre", "right"];

/**
 * A picture for each of `aus` [{code, name}] into the list `box`, by `places`: code -> {frame, probability, square, map}.
 * `pictureAt(frame)` promises {picture, width}, the picture of a frame and its width in the square's pixels; `told(frame)`
 * names a frame; `wanted()` says whether they still shall be drawn.
 */
export async function heatMaps(box, aus, places, { pictureAt, told, blur, wanted }) {
  const drawn = aus.map(({ code, name }) => ({ place: places[code], canvas: item(code, name, places[code], told) }));
  box.replaceChildren(...drawn.map(({ canvas }) => canvas.parentElement));
  for (const frame of [...new Set(drawn.map(({ place }) => place.frame))].sort((a, b) => a - b)) {
    const { picture, width } = await pictureAt(frame);
    if (!wanted()) return;
    for (const { place, canvas } of drawn) if (place.frame === frame) draw(canvas, picture, width, place, blur);
  }
}

/** The canvas of an action unit, in an item of the list. */
function item(code, name, { frame, probability, map }, told) {
  const canvas = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `${code} ${name}: looked at most in the ${inWords(map)}`);
  const label = Object.assign(document.createElement("b"), { textContent: code });
  const facts = Object.assign(document.createElement("small"), { textContent: ` ${(probability * 100).toFixed(0)} %, ${told(frame)}` });
  Object.assign(document.createElement("li"), { title: `${code} ${name}` }).append(canvas, label, facts);
  return canvas;
}

/** The place of the highest share: "upper left". */
export function inWords(map) {
  const shares = map.flat(), at = shares.indexOf(Math.max(...shares)), across = map[0].length;
  const third = (place, places) => Math.floor(((place + 0.5) / places) * 3);
  const row = third(Math.floor(at / across), map.length), column = third(at % across, across);
  return row === 1 && column === 1 ? "centre" : `${ROWS[row]} ${COLUMNS[column]}`;
}

function draw(canvas, picture, width, { square, map }, blur) {
  const context = canvas.getContext("2d");
  cut(canvas, picture, square, width, blur);
  context.globalCompositeOperation = "saturation"; // the picture without its colours: those are the map's
  context.fillStyle = "#808080";
  context.fillRect(0, 0, SIDE, SIDE);
  context.globalCompositeOperation = "source-over";
  context.imageSmoothingEnabled = true;
  context.drawImage(heat(map), 0, 0, SIDE, SIDE);
}

/** A pixel for each place, from clear over red to yellow. */
function heat(map) {
  const shares = map.flat(), full = Math.max(MARKED / shares.length, ...shares);
  const small = Object.assign(document.createElement("canvas"), { width: map[0].length, height: map.length });
  const pixels = new Uint8ClampedArray(shares.flatMap((share) => [255, 40 + (190 * share) / full, 30, (210 * share) / full]));
  small.getContext("2d").putImageData(new ImageData(pixels, small.width, small.height), 0, 0);
  return small;
}
