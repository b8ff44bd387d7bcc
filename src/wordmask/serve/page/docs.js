/** The API's page, from this server's own openapi.json: no script of others is needed. */

const $ = (id) => document.getElementById(id);
$("example").textContent = `curl -F picture=@street.jpg -F words=road -F 'words=car, automobile' -F words=sky ${location.origin}/v1/segment`;
$("drawn").textContent = `curl -H 'Accept: image/png' -F picture=@street.jpg -F words=road -F words=sky -F return=overlay -o street.masks.png ${location.origin}/v1/segment`;

const element = (kind, text, ...children) => {
  const one = document.createElement(kind);
  String(text ?? "").split("`").forEach((part, number) => {  // between backticks: code
    if (number % 2) one.append(Object.assign(document.createElement("code"), { textContent: part }));
    else if (part) one.append(part);
  });
  one.append(...children);
  return one;
};

function kindOf(schema, all) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.anyOf) return [...new Set(schema.anyOf.filter(({ type }) => type !== "null").map((one) => kindOf(one, all)))].join(" or ");
  if (schema.enum) return schema.enum.join(" · ");
  if (schema.const) return schema.const;
  if (schema.type === "array") return `list of ${kindOf(schema.items, all) || "anything"}`;
  const range = schema.minimum !== undefined && schema.maximum !== undefined ? `, ${schema.minimum} to ${schema.maximum}` : "";
  return (schema.format === "binary" ? "file" : schema.type ?? "anything") + range;
}

function fields(schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([name, one]) => {
    const must = schema.required?.includes(name) ? "required. " : "";
    return element("tr", "", element("td", name), element("td", kindOf(one)), element("td", must + (one.description ?? "")));
  });
  return element("table", "", ...rows);
}

function route(path, verb, about, schemas) {
  const parts = [element("h2", "", Object.assign(element("span", verb.toUpperCase()), { className: "verb" }), element("span", path)), element("p", about.description ?? about.summary)];
  for (const [kind, { schema }] of Object.entries(about.requestBody?.content ?? {})) parts.push(element("h3", `Request, ${kind}`), fields(schema));
  const answer = about.responses["200"]?.content?.["application/json"]?.schema?.$ref?.split("/").pop();
  if (answer) {
    parts.push(element("h3", "Answer, application/json"), fields(schemas[answer]));
    for (const used of ["FoundRegion", "Class", "Runs"]) parts.push(element("h3", used), fields(schemas[used]));
  }
  const statuses = Object.entries(about.responses).map(([code, { description }]) => element("tr", "", element("td", code), element("td", description)));
  parts.push(element("h3", "Statuses"), element("table", "", ...statuses));
  return element("article", "", ...parts);
}

const [{ paths, components }, { limits }] = await Promise.all(["/openapi.json", "/v1/models"].map(async (path) => (await fetch(path)).json()));
$("limits").textContent = `Here a picture may have ${limits.upload / 1e6} MB and ${limits.pixels / 1e6} million pixels, a request ${limits.words} words and ${limits.seconds} s; ${limits.queue} may be under way, and a client may send ${limits.rate || "any number of"} requests a minute. What is refused says why, and with 429 and 503 when to come again.`;
for (const [path, verbs] of Object.entries(paths)) for (const [verb, about] of Object.entries(verbs)) $("routes").append(route(path, verb, about, components.schemas));
