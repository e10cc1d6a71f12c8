// Talks to the service: sends files, reads the answer line by line as it comes. Knows the API, not the page.
import { Recording } from "./recording.js";

/** `status` 0: no connection. `retryAfter`: seconds to wait, where the service says so. */
export class Refused extends Error {
  constructor(status, message, retryAfter = null) { super(message); this.status = status; this.retryAfter = retryAfter; }
}
export class Cancelled extends Error {}

/** Facts of the model, its notice among them. */
export async function model(token) {
  const answer = await fetch("v1/model", { headers: token ? { Authorization: `Bearer ${token}` } : {} });
  if (!answer.ok) throw new Refused(answer.status, words(answer.status, await answer.text()), Number(answer.headers.get("Retry-After")) || null);
  return answer.json();
}

/**
 * Upload `files` and fill `recording` with the answer. `seen({sent, read, frames})` is told as it goes on.
 * `options`: faces, expressions, pictures, where, as the route names them.
 */
export function analyse(files, recording, { options, token, signal, seen }) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    for (const file of files) form.append("file", file, file.name);
    const request = new XMLHttpRequest();
    let offset = 0, sent = 0;
    const report = () => seen({ sent, read: recording.read, frames: recording.start?.video.frames ?? 0 });
    const lines = () => {
      const text = request.responseText;
      for (let end; (end = text.indexOf("\n", offset)) >= 0; offset = end + 1) recording.add(JSON.parse(text.slice(offset, end)));
      report();
    };
    request.open("POST", `v1/predict?${new URLSearchParams(options)}`);
    request.setRequestHeader("Accept", "application/x-ndjson");
    if (token) request.setRequestHeader("Authorization", `Bearer ${token}`);
    const failing = (work) => () => { try { work(); } catch (error) { reject(error); request.abort(); } };
    request.upload.onprogress = (event) => { sent = event.loaded / (event.total || 1); report(); };
    request.onprogress = failing(() => { if (request.status === 200) lines(); });
    request.onload = failing(() => {
      if (request.status !== 200) {
        return reject(new Refused(request.status, words(request.status, request.responseText), Number(request.getResponseHeader("Retry-After")) || null));
      }
      lines();
      return recording.ended ? resolve() : reject(new Error("The answer ended early."));
    });
    request.onerror = () => reject(new Refused(0, "The connection to the server was lost."));
    request.onabort = () => reject(new Cancelled());
    signal.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}

/** The address of the camera's WebSocket, and the subprotocols that carry the token: a browser sends no header there. */
export function liveSocket(options, token) {
  const url = new URL(`v1/live?${new URLSearchParams(options)}`, location.href);
  url.protocol = url.protocol.replace("http", "ws");
  const secret = token && btoa(token).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  const socket = new WebSocket(url, ["ssm.live", ...(secret ? [`ssm.bearer.${secret}`] : [])]);
  socket.binaryType = "arraybuffer";
  return socket;
}

function words(status, text) {
  try { return JSON.parse(text).error ?? `The server answered ${status}.`; } catch { return `The server answered ${status}.`; }
}
