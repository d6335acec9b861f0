"use strict";
const root = document.documentElement, figures = JSON.parse(document.getElementById("figures").textContent);
const NAMES = { step: "steps", seconds: "seconds of training", flops: "FLOPs" }, AS_IT_IS = new Set(["x", "y", "z", "step", "seconds"]);
const TEXT = new Set(["name", "text", "customdata", "ticktext", "hovertemplate"]);
const plots = figures.map((_, i) => document.getElementById(`f${i}`));

// A figure with the theme's colours in place of the names of CSS variables; what people wrote is never looked into.
function themed(x, style) {
  if (typeof x === "string") return x.startsWith("var(") ? style.getPropertyValue(x.slice(4, -1)).trim() : x;
  if (Array.isArray(x)) return x.map((y) => themed(y, style));
  if (x === null || typeof x !== "object") return x;
  const kept = (key, y) => TEXT.has(key) || (AS_IT_IS.has(key) && Array.isArray(y));
  return Object.fromEntries(Object.entries(x).map(([key, y]) => [key, kept(key, y) ? y : themed(y, style)]));
}

function choice() {
  const chosen = document.querySelector("input[name=x]:checked"), log = document.getElementById("log");
  return { axis: chosen ? chosen.value : "step", log: Boolean(log && log.checked) };
}

const along = ({ step, seconds, flops }, axis) => (axis === "seconds" ? seconds : axis === "flops" ? step.map((n) => n * flops) : step);

// All learning curves have one x axis, from 0 to the end of the longest.
function range(axis) {
  const ends = figures.filter((f) => f.curve).flatMap((f) => f.data.map((trace) => along(trace, axis).at(-1) ?? 0));
  return [0, 1.01 * Math.max(...ends)];
}

function draw(i) {
  const figure = figures[i], style = getComputedStyle(root), { axis, log } = choice();
  const data = figure.data.map((trace) => {
    const { step, seconds, flops, ...rest } = trace;
    return figure.curve ? { ...rest, x: along(trace, axis) } : rest;
  });
  const line = { gridcolor: "var(--line)", zeroline: false, automargin: true, nticks: 6 };
  const { xaxis, yaxis, ...rest } = figure.layout;
  const layout = {
    showlegend: false, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 36, r: 8, t: 8, b: 24 },
    font: { family: getComputedStyle(document.body).fontFamily, size: 11, color: "var(--muted)" },
    hoverlabel: { bgcolor: "var(--panel)", bordercolor: "var(--line)", font: { color: "var(--ink)" } },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    xaxis: { ...line, ...(figure.curve ? { title: { text: NAMES[axis], standoff: 4 }, showgrid: false, exponentformat: "SI",
      range: range(axis) } : {}), ...xaxis },
    yaxis: { ...line, ...yaxis, ...(figure.log && log ? { type: "log", rangemode: "normal", dtick: undefined } : {}) }, ...rest,
  };
  const config = { displaylogo: false, responsive: true, displayModeBar: false };
  Plotly.react(plots[i], themed(data, style), themed(layout, style), config);
}

const drawAll = () => figures.forEach((_, i) => draw(i));

async function unpack() {
  const text = document.getElementById("library").textContent;
  const bytes = Uint8Array.fromBase64?.(text) ?? Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

function print(on) {
  root.classList.toggle("printing", on);
  if (on) document.querySelectorAll("details").forEach((d) => { d.open = true; });
  drawAll();
}

async function main() {
  try {
    await unpack();
  } catch (error) {
    plots.forEach((p) => { p.textContent = "This browser cannot draw the charts; one of 2023 or later can."; });
    return;
  }
  for (let i = 0; i < figures.length; i++) {
    draw(i);
    await new Promise((go) => setTimeout(go)); // the page stays alive between charts
  }
  document.querySelectorAll(".choice input").forEach((input) => input.addEventListener("change", drawAll));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));
  root.dataset.drawn = Math.round(performance.now()); // milliseconds since the page was opened
}

main();
