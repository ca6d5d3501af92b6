// A process's status, told by shape and colour and word: nobody has to tell two greens apart.

import { html, svg, nothing } from "./template.js";

// Drawn in a square of 10 by 10.
const SHAPES = {
  running: svg`<circle cx="5" cy="5" r="4"/>`,
  waiting: svg`<circle cx="5" cy="5" r="3.250" class="hollow"/>`,
  hibernating: svg`<path d="M6.500 1A4.200 4.200 0 1 0 9 7.300A4 4 0 0 1 6.500 1Z"/>`,
  exiting: svg`<path d="M5 1A4 4 0 0 0 5 9Z"/><circle cx="5" cy="5" r="3.500" class="hollow"/>`,
  dead: svg`<path d="M1.500 1.500L8.500 8.500M8.500 1.500L1.500 8.500" class="line"/>`,
  zombie: svg`<path d="M5 0.500L9.700 9H0.300Z"/>`,
  restarting: svg`<path d="M8.500 5A3.500 3.500 0 1 1 6.500 1.800M6 0L8.300 2.300L5.600 4" class="line"/>`,
  stopped: svg`<rect x="1.500" y="1.500" width="7" height="7"/>`,
};

export const STATUSES = Object.keys(SHAPES);

/** What each means, for the legend. */
export const MEANING = {
  running: "running: on the hub now, or about to be",
  waiting: "waiting: for a message or for I/O",
  hibernating: "hibernating: asleep until the next message",
  exiting: "exiting: it has its exit signal",
  dead: "dead",
  zombie: "zombie: declared dead, yet its greenlet runs on",
  restarting: "restarting: its supervisor starts it again",
  stopped: "stopped: a child without a process",
};

/** The shape inside an SVG; `x`, `y` is its upper left corner. */
export const shape = (status, x, y) =>
  svg`<g class="mark ${status}" transform="translate(${x} ${y})">${SHAPES[status] ?? nothing}</g>`;

/** The shape in running text; the word stands beside it, so it is hidden from screen readers. */
export const mark = (status) =>
  html`<svg class="mark ${status}" viewBox="0 0 10 10" aria-hidden="true">${SHAPES[status] ?? nothing}</svg>`;

export const status = (word) =>
  word ? html`<span class="status ${word}">${mark(word)}${word}</span>` : nothing;

/** "×2": how often a child was restarted. */
export const badge = (restarts) =>
  restarts ? html`<span class="badge" title="restarted ${restarts} times">×${restarts}</span>` : nothing;
