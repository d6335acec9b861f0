// One page to try a model: it asks only the server it comes from, and shows answers as text, never as markup.

const find = (query, inside = document) => inside.querySelector(query);
const make = (name, text = "", kind = "") => {
  const element = document.createElement(name);
  element.textContent = text;
  element.className = kind;
  return element;
};
const show = (element, visible) => { element.hidden = !visible; };

let model = null;    // as /v1/models describes it
let talk = [];       // messages of a chat
let running = null;  // the AbortController of a request

async function ask(path, options = {}) {
  const key = find("#key input").value;
  const headers = { ...options.headers, ...(key ? { authorization: `Bearer ${key}` } : {}) };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  if (response.status === 401) { show(find("#key"), true); find("#key input").focus(); }
  const said = await response.json().catch(() => null);
  throw new Error(said?.error?.message ?? `the server answered with status ${response.status}`);
}

const send = (path, body, options = {}) => ask(path, {
  method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), ...options });

function complain(error) {
  const element = find("#error");
  element.textContent = error?.message ?? "";
  show(element, Boolean(error));
}

// Runs work with the buttons disabled and says what went wrong.
async function busy(work) {
  complain(null);
  const buttons = document.querySelectorAll("button.go");
  buttons.forEach((button) => { button.disabled = true; });
  try { await work(); } catch (error) { if (error.name !== "AbortError") complain(error); }
  buttons.forEach((button) => { button.disabled = false; });
}

async function begin() {
  const { data } = await (await ask("/v1/models")).json();
  const select = find("#model");
  select.replaceChildren(...data.map((one) => make("option", one.id)));
  select.onchange = () => choose(data[select.selectedIndex]);
  choose(data[0]);
}

function choose(chosen) {
  model = chosen;
  talk = [];
  running?.abort();
  complain(null);
  const writes = model.does.includes("completions");
  const facts = [`does ${model.does.join(", ")}`];
  if (model.context) facts.push(`context of ${model.context} tokens`);
  find("#about").textContent = facts.join(" · ");
  show(find("#write"), writes);
  show(find("#text"), !writes && model.input === "text");
  show(find("#row"), !writes && model.input === "row");
  show(find("#file"), !writes && ["image", "sound"].includes(model.input));
  show(find("#values"), false);
  show(find("#file img"), false);
  show(find("#file audio"), false);
  find("#talk").replaceChildren();
  find("#write output").textContent = "";
  find("#write textarea").value = model.does.includes("chat") ? "" : model.prompt ?? "";
  find("#write .go").textContent = model.does.includes("chat") ? "Send" : "Write";
  find("#write .tokens").max = model.context ?? 0;
  find(".drop span").textContent = `Drop ${model.input === "sound" ? "a sound" : "an image"} here, or click to choose one`;
  find(".drop input").accept = model.input === "sound" ? "audio/*" : "image/*";
  find("#row form").replaceChildren(...(model.fields ?? []).map((name) => {
    const long = name === "context";  // beside a question
    const label = make("label", name, long ? "long" : "");
    label.append(Object.assign(make(long ? "textarea" : "input"), { name, autocomplete: "off" }));
    return label;
  }));
  document.documentElement.dataset.model = model.id;
}

// The objects of a stream of server-sent events.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (held + value).split("\n\n");
    held = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data === "[DONE]") return;
      const said = JSON.parse(data);
      if (said.error) throw new Error(said.error.message);
      yield said;
    }
  }
}

async function write() {
  const chat = model.does.includes("chat");
  const box = find("#write textarea"), prompt = box.value;
  if (!prompt) return box.focus();
  const answer = make("p"), counted = find("#write output");
  if (chat) {
    talk.push({ role: "user", content: prompt });
    find("#talk").append(make("p", prompt, "user"), answer);
    box.value = "";
  } else {
    answer.append(make("span", prompt, "prompt"));
    find("#talk").replaceChildren(answer);
  }
  const text = answer.appendChild(make("span"));
  const body = { model: model.id, stream: true, stream_options: { include_usage: true },
    temperature: Number(find(".temperature").value), max_tokens: Number(find(".tokens").value),
    ...(chat ? { messages: talk } : { prompt }) };
  running = new AbortController();
  show(find("#write .stop"), true);
  const began = performance.now();
  counted.textContent = "";
  try {
    const path = chat ? "/v1/chat/completions" : "/v1/completions";
    for await (const event of events(await send(path, body, { signal: running.signal }))) {
      const [choice] = event.choices;
      if (choice) text.textContent += (chat ? choice.delta.content : choice.text) ?? "";
      if (event.usage) {
        const seconds = (performance.now() - began) / 1000;
        counted.textContent = `${event.usage.completion_tokens} tokens in ${seconds.toFixed(1)} s`;
      }
    }
  } finally {
    show(find("#write .stop"), false);
    if (chat) talk = text.textContent ? [...talk, { role: "assistant", content: text.textContent }] : talk.slice(0, -1);
  }
}

function cell(value) {
  const td = make("td");
  if (value !== null && typeof value === "object" && !Array.isArray(value)) {
    for (const [name, x] of Object.entries(value)) {
      const line = td.appendChild(make("div"));
      line.append(make("span", name));
      if (typeof x === "number" && x >= 0 && x <= 1) line.append(Object.assign(make("meter"), { value: x }));
      else line.append(make("span"));
      line.append(make("span", typeof x === "number" ? String(+x.toPrecision(4)) : JSON.stringify(x)));
    }
  } else if (Array.isArray(value) && value.length > 12) {
    td.textContent = `${value.slice(0, 8).map((x) => typeof x === "number" ? +x.toPrecision(3) : x).join(", ")} … (${value.length})`;
  } else {
    td.textContent = typeof value === "string" ? value : JSON.stringify(value);
  }
  return td;
}

function answered({ predictions: [values] }) {
  if (values.error) throw new Error(values.error);
  const { picture, ...rest } = values;
  if (picture) Object.assign(find("#file img"), { src: picture, hidden: false });
  find("#values tbody").replaceChildren(...Object.entries(rest).map(([name, value]) => {
    const row = make("tr");
    row.append(make("th", name), cell(value));
    return row;
  }));
  show(find("#values"), true);
}

const predict = async (input) => answered(await (await send("/predict", { model: model.id, inputs: [input] })).json());

async function upload(file) {
  if (!file) return;
  show(find("#values"), false);
  const own = URL.createObjectURL(file);
  if (model.input === "sound") Object.assign(find("#file audio"), { src: own, hidden: false });
  else Object.assign(find("#file img"), { src: own, hidden: false });
  const query = new URLSearchParams({ model: model.id, ...(model.draws ? { draw: "" } : {}) });
  const headers = { "content-type": "application/octet-stream" };
  answered(await (await ask(`/predict?${query}`, { method: "POST", headers, body: file })).json());
}

// A number where the text is one, null where it is empty.
function typed(text) {
  if (text.trim() === "") return null;
  return Number.isFinite(Number(text)) ? Number(text) : text;
}

find("#write .go").onclick = () => busy(write);
find("#write .stop").onclick = () => running?.abort();
find("#write .clear").onclick = () => choose(model);
find("#write textarea").onkeydown = (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) busy(write);
};
find("#text .go").onclick = () => busy(() => predict(find("#text textarea").value));
const row = () => busy(() => predict(Object.fromEntries(
  [...new FormData(find("#row form"))].map(([name, value]) => [name, typed(value)]))));
find("#row .go").onclick = row;
find("#row form").onsubmit = (event) => { event.preventDefault(); row(); };

const drop = find(".drop");
find("input", drop).onchange = ({ target }) => busy(() => upload(target.files[0])).then(() => { target.value = ""; });
drop.ondragover = (event) => { event.preventDefault(); drop.classList.add("over"); };
drop.ondragleave = () => drop.classList.remove("over");
drop.ondrop = (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  busy(() => upload(event.dataTransfer.files[0]));
};
drop.onkeydown = (event) => { if (event.key === "Enter") find("input", drop).click(); };
addEventListener("dragover", (event) => event.preventDefault());  // a file dropped beside it opens no page
addEventListener("drop", (event) => event.preventDefault());

find("#key").onsubmit = (event) => { event.preventDefault(); busy(begin); };
busy(begin);
