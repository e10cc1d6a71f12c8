// The routes of openapi.json as plain text: no library, nothing from elsewhere.
const make = (tag, text, parent, className) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  if (className) element.className = className;
  return parent ? parent.appendChild(element) : element;
};

document.getElementById("origin").textContent = new URL("./", location.href).href;
const { paths } = await (await fetch("openapi.json")).json();
for (const [path, methods] of Object.entries(paths)) {
  for (const [method, route] of Object.entries(methods)) {
    const card = make("section", "", document.getElementById("routes"), "card");
    make("h3", `${method.toUpperCase()} ${path}`, card);
    make("p", route.description ?? route.summary ?? "", card);
    const list = make("ul", "", card, "quiet");
    for (const { name, in: place, description, schema } of route.parameters ?? []) {
      make("li", `${place} ${name}: ${description ?? ""} ${schema?.enum ? `(${schema.enum.join(", ")})` : ""}`, list);
    }
    for (const kind of Object.keys(route.requestBody?.content ?? {})) make("li", `body ${kind}`, list);
    for (const [status, answer] of Object.entries(route.responses)) make("li", `${status}: ${answer.description}`, list);
  }
}
