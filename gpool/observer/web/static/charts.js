// A small chart over time: uPlot draws on a canvas, and a sentence beside it says the latest values.

import uPlot from "./vendor/uplot/uPlot.esm.js";
import { clock } from "./format.js";

const HEIGHT = 130;
const DASH = [[], [], [4, 3]]; // with the colour: nobody has to tell lines by colour alone
const dark = matchMedia("(prefers-color-scheme: dark)");

/** With seconds, where minutes do not tell them apart. */
function times(ticks) {
  const texts = ticks.map(clock);
  return ticks[1] - ticks[0] < 60 ? texts : texts.map((text) => text.slice(0, -3));
}

export class Chart {
  element = document.createElement("figure"); // lit puts it in place, uPlot fills it

  #series; // {key, label, colour: index}
  #worded; // value → text
  #history = null;
  #plot = null;
  #caption = document.createElement("figcaption");
  #box = document.createElement("div");

  constructor(title, series, worded) {
    this.#series = series;
    this.#worded = worded;
    this.element.className = "chart";
    const heading = document.createElement("h2");
    heading.textContent = title;
    this.#box.setAttribute("aria-hidden", "true");
    this.element.append(heading, this.#box, this.#caption);
    new ResizeObserver(() => this.#fit()).observe(this.#box);
    dark.addEventListener("change", () => this.#build());
  }

  update(history) {
    this.#history = history;
    this.#caption.replaceChildren(...this.#legend());
    if (this.#plot) this.#plot.setData(this.#data());
    else this.#fit();
  }

  #data = () => [this.#history.at, ...this.#series.map(({ key }) => this.#history[key])];

  /** The latest values, with a sample of the line that shows them. */
  #legend() {
    return this.#series.map(({ key, label, colour }) => {
      const item = document.createElement("span");
      const value = document.createElement("strong");
      value.textContent = this.#worded(this.#history[key].at(-1) ?? null);
      item.className = `line-${colour}`;
      item.append(`${label} `, value);
      return item;
    });
  }

  #fit() {
    const width = this.#box.clientWidth;
    if (!width || !this.#history) return; // not on the screen
    if (this.#plot) this.#plot.setSize({ width, height: HEIGHT });
    else this.#build();
  }

  /** The canvas knows no CSS: it is made anew where the colours change. */
  #build() {
    this.#plot?.destroy();
    this.#plot = null;
    const width = this.#box.clientWidth;
    if (!width) return;
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const axis = {
      stroke: colour("--dim"),
      font: "11px system-ui, sans-serif",
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { show: false },
    };
    const options = {
      width,
      height: HEIGHT,
      padding: [8, 18, 0, 0],
      legend: { show: false },
      cursor: { y: false, sync: { key: "pool" }, points: { size: 5 }, drag: { setScale: false } },
      hooks: { setCursor: [(plot) => this.#point(plot)] },
      scales: { y: { range: (_, least, most) => [0, most > 0 ? most * 1.1 : 1] } },
      axes: [
        { ...axis, size: 24, space: 80, values: (_, ticks) => times(ticks) },
        {
          ...axis,
          size: 52,
          space: 30,
          values: (_, ticks) => ticks.map((value) => this.#scale(value)),
        },
      ],
      series: [
        {},
        ...this.#series.map((one) => ({
          label: one.label,
          stroke: colour(`--line-${one.colour}`),
          width: 1.5,
          dash: DASH[one.colour],
          points: { show: false },
        })),
      ],
    };
    this.#plot = new uPlot(options, this.#data(), this.#box);
  }

  /** A value beside the axis; none where there is nothing to measure by it. */
  #scale(value) {
    if (value === 0) return "0";
    return this.#series.some(({ key }) => this.#history[key].some((n) => n > 0)) ? this.#worded(value) : "";
  }

  /** Under the pointer: the values of then, not the latest. */
  #point(plot) {
    const { idx } = plot.cursor;
    const at = idx ?? this.#history.at.length - 1;
    [...this.#caption.children].forEach((item, i) => {
      item.lastChild.textContent = this.#worded(this.#history[this.#series[i].key][at] ?? null);
    });
    this.#caption.dataset.at = idx === null || idx === undefined ? "" : clock(this.#history.at[at]);
  }
}
