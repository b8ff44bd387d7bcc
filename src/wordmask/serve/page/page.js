import { deepest, filled, idMap, outlined, packed, resized } from "/masks.js";

const $ = (id) => document.getElementById(id);
const LARGEST_VIEW = 1600, LARGEST_SAVED = 4096;  // pixels along the longer side
const PATIENCE = 3;  // times a busy server is asked again

const state = { file: null, words: [], models: [], result: null, ids: null, view: null, places: new Map(), hovered: 0, alone: 0, asking: null, summary: "" };

// ---- words ----

function addWords(text) {
  const known = new Set(state.words.map((word) => word.toLowerCase()));
  const fresh = text.normalize("NFC").split(/[;\n]/).map((word) => word.trim().replace(/\s+/g, " ").replace(/,\s*$/, "")).filter((word) => word && !known.has(word.toLowerCase()) && known.add(word.toLowerCase()));
  if (!fresh.length) return;
  state.words.push(...fresh);
  wordsChanged();
  $("word").scrollIntoView({ block: "nearest" });
}

function removeWord(number) {
  state.words.splice(number, 1);
  wordsChanged();
  const buttons = $("chips").querySelectorAll("button");
  (buttons[Math.min(number, buttons.length - 1)] ?? $("word")).focus();
}

function wordsChanged() {
  showChips();
  ask();
}

function showChips() {
  const colours = new Map();
  for (const region of state.result?.regions ?? []) if (region.colour && !colours.has(region.name)) colours.set(region.name, region.colour);
  $("chips").replaceChildren(...state.words.map((word, number) => {
    const [first, ...also] = word.replace(/\s*\[(stuff|thing)\]\s*$/i, "").split(",").map((name) => name.trim());
    const dot = element("span", { className: "dot" });
    const text = element("span", { className: "text" }, dot, element("span", {}, first, also.length ? element("span", { className: "also" }, `, ${also.join(", ")}`) : ""));
    const remove = element("button", { type: "button", ariaLabel: `Remove ${first}`, onclick: () => removeWord(number) }, "×");
    const chip = element("li", { className: "chip" }, text, remove);
    if (colours.has(first)) {
      dot.dataset.on = "";
      dot.style.setProperty("--colour", colours.get(first));
    }
    chip.classList.toggle("absent", Boolean(state.result) && !colours.has(first));
    return chip;
  }));
  $("word").placeholder = state.words.length ? "another word" : "sky, cup, red car …";
  showShell();
}

$("word").addEventListener("keydown", (event) => {
  if (event.isComposing) return;
  if (event.key === "Enter" || event.key === ";") {
    event.preventDefault();
    addWords($("word").value);
    $("word").value = "";
  } else if (event.key === "Backspace" && !$("word").value && state.words.length) {
    event.preventDefault();
    $("word").value = state.words.pop();
    wordsChanged();
  }
});
$("word").addEventListener("blur", () => { addWords($("word").value); $("word").value = ""; });
$("word").addEventListener("paste", (event) => {
  const text = event.clipboardData.getData("text/plain");
  if (!/[;\n]/.test(text)) return;
  event.preventDefault();
  addWords(text);
});
$("chips").addEventListener("keydown", (event) => {
  const buttons = [...$("chips").querySelectorAll("button")], here = buttons.indexOf(document.activeElement);
  if (here < 0) return;
  if (event.key === "Delete" || event.key === "Backspace") { event.preventDefault(); removeWord(here); }
  if (event.key === "ArrowLeft") buttons[here - 1]?.focus();
  if (event.key === "ArrowRight") (buttons[here + 1] ?? $("word")).focus();
});
$("field").addEventListener("click", (event) => { if (event.target === $("field")) $("word").focus(); });

// ---- the picture ----

function takePicture(file) {
  if (!file) return;
  if (file.type && !file.type.startsWith("image/")) return say(`“${file.name}” is no picture.`, true);
  state.file = file;
  clearResult();
  URL.revokeObjectURL($("picture").src);
  $("picture").src = URL.createObjectURL(file);
  $("picture").alt = file.name || "The picture";
  $("picture").onload = () => {
    $("view").style.setProperty("--ratio", $("picture").naturalWidth / $("picture").naturalHeight);
    $("empty").hidden = true;
    $("view").hidden = false;
    ask();
    if (!state.words.length && matchMedia("(pointer: fine)").matches) $("word").focus();
  };
  $("picture").onerror = () => say("Your browser can't show this picture. JPEG, PNG and WebP work everywhere.", true);
}

async function takeSample() {
  const answer = await fetch(`/v1/samples/${Math.floor(Math.random() * 10000)}`);
  const content = await answer.json();
  if (!answer.ok) return say(content.detail, true);
  const bytes = Uint8Array.from(atob(content.picture), (character) => character.charCodeAt(0));
  state.words = content.words;
  takePicture(new File([bytes], "scene.png", { type: "image/png" }));
  showChips();
}

$("file").addEventListener("change", () => { takePicture($("file").files[0]); $("file").value = ""; });
for (const id of ["sample", "another"]) $(id).addEventListener("click", () => takeSample().catch(() => say("The server does not answer.", true)));
document.addEventListener("paste", (event) => {
  const file = [...event.clipboardData.files].find((one) => one.type.startsWith("image/"));
  if (file) { event.preventDefault(); takePicture(file); }
});
let depth = 0;  // of elements that a dragged file has entered
document.addEventListener("dragenter", (event) => { if (event.dataTransfer?.types.includes("Files")) { depth++; document.body.classList.add("dragging"); } });
document.addEventListener("dragleave", () => { depth = Math.max(0, depth - 1); if (!depth) document.body.classList.remove("dragging"); });
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  document.body.classList.remove("dragging");
  takePicture(event.dataTransfer.files[0]);
});

// ---- asking ----

let later = 0;
function ask() {
  clearTimeout(later);
  state.asking?.abort();
  state.asking = null;
  const missing = !state.file ? (state.words.length ? "Now a picture: drop, paste or choose one." : "") : !state.words.length ? "Name what to look for." : null;
  document.body.classList.toggle("busy", missing === null);
  if (missing !== null) {
    clearResult();
    return say(missing);
  }
  later = setTimeout(askNow, 250);
}

async function askNow(patience = PATIENCE) {
  const asking = (state.asking = new AbortController());
  say("Looking …");
  try {
    const begin = performance.now();
    const answer = await fetch("/v1/segment", { method: "POST", body: form(), signal: asking.signal });
    const content = await answer.json().catch(() => ({ detail: `The server answered ${answer.status}.` }));
    if ((answer.status === 503 || answer.status === 429) && patience) {
      const seconds = Math.min(20, Number(answer.headers.get("Retry-After")) || 2);
      say(`The server is busy; trying again in ${seconds} s …`);
      await new Promise((done) => setTimeout(done, seconds * 1000));
      return asking.signal.aborted ? undefined : await askNow(patience - 1);
    }
    if (!answer.ok) { clearResult(); return say(content.detail, true); }
    showResult(content, (performance.now() - begin) / 1000);
  } catch (error) {
    if (error.name !== "AbortError") say("The server does not answer. Is it still running?", true);
  } finally {
    if (state.asking === asking) document.body.classList.remove("busy");
  }
}

function settings() {
  const chosen = { model: $("model").value, task: document.querySelector("#task input:checked")?.value, threshold: $("threshold").value / 100, background: $("background").checked ? "other" : "" };
  return Object.entries(chosen).filter(([, value]) => value);
}

function form() {
  const body = new FormData();
  body.append("picture", state.file, state.file.name || "picture");
  for (const word of state.words) body.append("words", word);
  for (const [name, value] of settings()) body.append(name, value);
  body.append("return", "regions,coco");
  return body;
}

function showShell() {
  const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
  const fields = [`picture=@${state.file?.name || "street.jpg"}`, ...(state.words.length ? state.words : ["road", "car, automobile", "sky"]).map((word) => `words=${word}`), ...settings().map(([name, value]) => `${name}=${value}`)];
  $("shell").textContent = ["curl", ...fields.map((field) => `-F ${quoted(field)}`), `${location.origin}/v1/segment`].join(" ");
}

// ---- the result ----

function clearResult() {
  Object.assign(state, { result: null, ids: null, view: null, hovered: 0, alone: 0 });
  $("found").hidden = $("downloads").hidden = $("tip").hidden = $("understood").hidden = true;
  for (const id of ["fill", "lines"]) $(id).width = $(id).height = 1;
  $("names").replaceChildren();
  showChips();
}

function showResult(result, seconds) {
  const { width, height } = result.size, shown = result.regions.filter((region) => region.colour);
  numberNames(result.regions);
  Object.assign(state, { result, shown, hovered: 0, alone: 0, ids: idMap(shown, width, height) });
  state.places = deepest(state.ids);
  $("frame").classList.add("fresh");
  fitView();
  requestAnimationFrame(() => $("frame").classList.remove("fresh"));
  showChips();
  showList();
  $("understood").textContent = result.understood ?? "";
  $("understood").hidden = !result.understood;
  const kinds = new Set(shown.map((region) => region.name)).size;
  say(state.summary = `${shown.length ? `${shown.length} region${shown.length > 1 ? "s" : ""} of ${kinds} word${kinds > 1 ? "s" : ""}` : "Nothing found"} · ${width}×${height} · ${seconds.toFixed(2)} s`);
  $("picture").alt = shown.length ? `Picture with ${shown.slice(0, 8).map((region) => region.title).join(", ")}` : "Picture, nothing found";
}

function numberNames(regions) {
  const counts = new Map(), seen = new Map();
  for (const { label } of regions) counts.set(label, (counts.get(label) ?? 0) + 1);
  for (const region of [...regions].sort((one, other) => one.id - other.id)) {
    seen.set(region.label, (seen.get(region.label) ?? 0) + 1);
    region.title = counts.get(region.label) > 1 ? `${region.name} ${seen.get(region.label)}` : region.name;
  }
}

function showList() {
  const { result, shown } = state, pixels = result.size.width * result.size.height;
  $("regions").replaceChildren(...shown.map((region) => {
    const numbers = element("span", { className: "numbers" }, share(region.area / pixels), element("b", {}, region.score.toFixed(2)));
    const row = element("button", { type: "button", ariaPressed: "false", ariaLabel: `${region.title}, score ${region.score.toFixed(2)}, ${share(region.area / pixels)} of the picture` },
      element("span", { className: "dot" }), element("span", { className: "name" }, region.title), numbers);
    row.style.setProperty("--colour", region.colour);
    row.dataset.id = region.id;
    row.onclick = () => isolate(region.id);
    row.onpointerenter = row.onfocus = () => hover(region.id);
    row.onpointerleave = row.onblur = () => hover(0);
    return element("li", {}, row);
  }));
  const faint = result.regions.length - shown.length;
  const rest = [shown.length ? "" : "No word fits. Other words may, or another task or model.", result.unlabelled_area && shown.length ? `${share(result.unlabelled_area / pixels)} of the picture is none of these.` : "", faint ? `${faint} more have a score below 0.1.` : ""];
  $("rest").textContent = rest.filter(Boolean).join(" ");
  $("found").hidden = false;
  $("downloads").hidden = false;
  showIsolation();
}

function isolate(id) {
  state.alone = state.alone === id ? 0 : id;
  state.hovered = 0;
  showIsolation();
  draw();
}

function showIsolation() {
  for (const row of $("regions").querySelectorAll("button")) row.ariaPressed = String(Number(row.dataset.id) === state.alone);
  $("release").hidden = !state.alone;
  $("png").textContent = state.alone ? "Save cut-out PNG" : "Save PNG";
}

function hover(id) {
  if (state.hovered === id) return;
  state.hovered = id;
  for (const row of $("regions").querySelectorAll("button")) row.classList.toggle("lit", Number(row.dataset.id) === id);
  requestAnimationFrame(draw);
}

$("release").onclick = () => { isolate(state.alone); $("regions").querySelector("button")?.focus(); };
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.alone) isolate(state.alone);
});
$("regions").addEventListener("keydown", (event) => {
  const rows = [...$("regions").querySelectorAll("button")], here = rows.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step && rows[here + step]) { event.preventDefault(); rows[here + step].focus(); }
});

// ---- drawing ----

function fitView() {
  if (!state.ids) return;
  const box = $("frame").getBoundingClientRect(), dots = Math.min(2, window.devicePixelRatio || 1);
  const scale = Math.min(1, LARGEST_VIEW / Math.max(box.width * dots, box.height * dots));
  state.view = resized(state.ids, Math.max(1, Math.round(box.width * dots * scale)), Math.max(1, Math.round(box.height * dots * scale)));
  draw();
}

function colourTable(choose) {
  const table = new Uint32Array(65536);
  for (const region of state.shown) table[region.id] = choose(region);
  return table;
}

function draw() {
  if (!state.view) return;
  const { view, alone, hovered } = state, thickness = Math.max(1, Math.round(Math.max(view.width, view.height) / 700));
  const veil = getComputedStyle(document.documentElement).getPropertyValue("--veil").trim().split(" ").map(Number);
  let fill, lines;
  if (alone) {
    fill = new Uint32Array(65536).fill(packed(`#${veil.map((value) => value.toString(16).padStart(2, "0")).join("")}`, 218));
    fill[alone] = 0;
    lines = colourTable(({ id, colour }) => (id === alone ? packed(colour) : 0));
  } else {
    fill = colourTable(({ id, colour }) => packed(colour, !hovered || id === hovered ? 255 : 90));
    lines = colourTable(({ id, colour }) => (!hovered || id === hovered ? packed(colour) : packed(colour, 110)));
  }
  put("fill", filled(view, fill));
  put("lines", outlined(view, lines, hovered || alone ? thickness + 1 : thickness));
  $("fill").style.opacity = alone ? 1 : opacity();
  $("lines").style.opacity = 1;
  showNames();
}

function put(id, image) {
  const canvas = $(id);
  if (canvas.width !== image.width || canvas.height !== image.height) Object.assign(canvas, { width: image.width, height: image.height });
  canvas.getContext("2d").putImageData(image, 0, 0);
}

const opacity = () => $("opacity").value / 100;

/** Names that have room in their region, the largest regions first, in pixels of a picture that is `width` wide. */
function placedNames(width, height, size) {
  const taken = [], placed = [];
  for (const region of $("named").checked ? [...state.shown].sort((one, other) => other.area - one.area) : []) {
    const place = state.places.get(region.id), half = region.title.length * size * 0.29 + size * 0.75;
    if (!place || (state.alone && state.alone !== region.id) || place.depth * Math.max(width, height) < size * 0.8 || 2 * half > width) continue;
    const x = Math.min(Math.max(place.x * width, half + 3), width - half - 3), y = Math.min(Math.max(place.y * height, size * 1.2), height - size * 1.2);
    const box = [x - half, y - size, x + half, y + size];
    if (taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
    taken.push(box);
    placed.push({ region, x, y, half });
  }
  return placed;
}

function showNames() {
  const box = $("frame").getBoundingClientRect();
  $("names").replaceChildren(...placedNames(box.width, box.height, 12.5).map(({ region, x, y }) => {
    const name = element("span", {}, region.title);
    Object.assign(name.style, { left: `${(100 * x) / box.width}%`, top: `${(100 * y) / box.height}%`, opacity: state.hovered && state.hovered !== region.id ? 0.35 : 1 });
    return name;
  }));
}

function regionAt(event) {
  if (!state.ids) return null;
  const box = $("frame").getBoundingClientRect(), { map, width, height } = state.ids;
  const x = Math.floor(((event.clientX - box.left) / box.width) * width), y = Math.floor(((event.clientY - box.top) / box.height) * height);
  if (x < 0 || y < 0 || x >= width || y >= height) return null;
  return state.shown.find((region) => region.id === map[y * width + x]) ?? null;
}

function showTip(event, region) {
  $("tip").hidden = !region;
  if (!region) return;
  const dot = element("span", { className: "dot" });
  dot.style.setProperty("--colour", region.colour);
  const rival = region.runner_up ? ` · or ${region.runner_up}?` : "";
  $("tip").replaceChildren(element("b", {}, dot, region.title), element("small", {}, `score ${region.score.toFixed(2)}${rival}`));
  const { offsetWidth, offsetHeight } = $("tip");
  const left = Math.min(event.clientX + 16, innerWidth - offsetWidth - 8), top = event.clientY + 20 + offsetHeight > innerHeight ? event.clientY - offsetHeight - 12 : event.clientY + 20;
  $("tip").style.transform = `translate(${left}px, ${top}px)`;
}

$("frame").addEventListener("pointermove", (event) => {
  if (event.pointerType === "touch") return;
  const region = regionAt(event), wanted = state.alone && region?.id !== state.alone ? null : region;
  showTip(event, wanted);
  hover(state.alone ? 0 : wanted?.id ?? 0);
});
$("frame").addEventListener("pointerleave", () => { $("tip").hidden = true; hover(0); });
$("frame").addEventListener("click", (event) => {
  const region = regionAt(event);
  if (state.alone) isolate(state.alone);
  else if (region) isolate(region.id);
  if (event.pointerType === "touch") say(region && state.alone ? `${region.title} · score ${region.score.toFixed(2)}` : state.summary);
});
$("opacity").addEventListener("input", () => { $("fill").style.opacity = state.alone ? 1 : opacity(); });
$("named").addEventListener("change", showNames);
new ResizeObserver(() => requestAnimationFrame(fitView)).observe($("frame"));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

// ---- saving ----

function picturePng() {
  const picture = $("picture"), scale = Math.min(1, LARGEST_SAVED / Math.max(picture.naturalWidth, picture.naturalHeight));
  const width = Math.max(1, Math.round(picture.naturalWidth * scale)), height = Math.max(1, Math.round(picture.naturalHeight * scale));
  const ids = resized(state.ids, width, height), [canvas, pen] = sheet(width, height);
  pen.drawImage(picture, 0, 0, width, height);
  const layer = (image, strength) => { const [one] = sheet(width, height, image); pen.globalAlpha = strength; pen.drawImage(one, 0, 0); pen.globalAlpha = 1; };
  if (state.alone) {
    const mask = new Uint32Array(65536);
    mask[state.alone] = 0xff000000;
    pen.globalCompositeOperation = "destination-in";
    layer(filled(ids, mask), 1);
    const [left, top, right, bottom] = state.shown.find(({ id }) => id === state.alone).box.map((edge) => Math.round(edge * scale));
    const [cut, cutter] = sheet(Math.max(1, right - left), Math.max(1, bottom - top));
    cutter.drawImage(canvas, -left, -top);
    return cut;
  }
  layer(filled(ids, colourTable(({ colour }) => packed(colour))), opacity());
  layer(outlined(ids, colourTable(({ colour }) => packed(colour)), Math.max(1, Math.round(Math.min(width, height) / 400))), 1);
  const size = Math.max(12, Math.round(Math.max(width, height) / 64));
  Object.assign(pen, { font: `560 ${size}px system-ui, sans-serif`, textAlign: "center", textBaseline: "middle" });
  for (const { region, x, y, half } of placedNames(width, height, size)) {
    pen.fillStyle = "rgb(18 18 22 / 66%)";
    pen.beginPath();
    pen.roundRect(x - half, y - size * 0.9, 2 * half, size * 1.8, size * 0.5);
    pen.fill();
    pen.fillStyle = "#fff";
    pen.fillText(region.title, x, y);
  }
  return canvas;
}

function sheet(width, height, image) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height }), pen = canvas.getContext("2d");
  if (image) pen.putImageData(image, 0, 0);
  return [canvas, pen];
}

function save(content, ending) {
  const stem = (state.file.name || "picture").replace(/\.[^.]*$/, "");
  const link = element("a", { href: URL.createObjectURL(content), download: stem + ending });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 30000);
}

$("png").onclick = () => {
  const name = state.alone ? `.${state.shown.find(({ id }) => id === state.alone).title.replace(/[^\p{L}\p{N}]+/gu, "-")}.png` : ".masks.png";
  picturePng().toBlob((content) => save(content, name), "image/png");
};
$("coco").onclick = () => save(new Blob([JSON.stringify(state.result.coco, null, 1)], { type: "application/json" }), ".coco.json");

// ---- models and settings ----

async function showModels() {
  const { models } = await (await fetch("/v1/models")).json();
  state.models = models;
  $("model").replaceChildren(...models.map(({ name }) => element("option", { value: name }, name)));
  $("models").hidden = models.length < 2;
  showTasks();
}

function showTasks() {
  const { tasks } = state.models.find(({ name }) => name === $("model").value);
  $("task").replaceChildren(...tasks.map((task, number) => element("label", {}, element("input", { type: "radio", name: "task", value: task, checked: number === 0, onchange: ask }), element("span", {}, task))));
  $("tasks").hidden = tasks.length < 2;
  showShell();
}

$("model").addEventListener("change", () => { showTasks(); ask(); });
$("task").addEventListener("change", showShell);
$("background").addEventListener("change", () => { showShell(); ask(); });
$("threshold").addEventListener("input", () => { $("least").textContent = ($("threshold").value / 100).toFixed(2); });
$("threshold").addEventListener("change", () => { showShell(); ask(); });

// ---- small things ----

function element(kind, properties, ...children) {
  const one = Object.assign(document.createElement(kind), properties);
  one.append(...children.filter((child) => child !== ""));
  return one;
}

function share(part) {
  return part >= 0.01 ? `${Math.round(100 * part)} %` : "<1 %";
}

function say(text, wrong = false) {
  $("status").textContent = text;
  $("status").classList.toggle("wrong", wrong);
}

showChips();
showModels().catch(() => say("The server does not answer.", true));
