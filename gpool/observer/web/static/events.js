// What happened: crashes, restarts, time-outs, the newest first.

import { html, nothing } from "./template.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";
import { nodePath } from "./api.js";
import { clock, counted, isoTime } from "./format.js";
import { processLink } from "./link.js";

const KEPT = 1000;
const LEVELS = { info: 0, warning: 1, error: 2 };
const SIGN = { info: "i", warning: "!", error: "✕" };

export class Events {
  #app;
  #node = null; // whose events these are
  #events = []; // the oldest first
  #last = 0; // the highest number heard of
  #seen = new Map(); // node → the highest number that was on the screen

  constructor(app) {
    this.#app = app;
  }

  path({ node }) {
    return nodePath(node, "events", { after: this.#node === node ? this.#last : 0 });
  }

  take({ events, last }, { node }) {
    if (this.#node !== node) [this.#node, this.#events, this.#last] = [node, [], 0];
    for (const event of events) this.#add(event);
    this.#events = this.#events.slice(-KEPT);
    this.#last = last;
    this.#seen.set(node, last);
  }

  /** One like the latest takes its place: the node has joined the two and counts them. */
  #add(event) {
    const latest = this.#events.at(-1);
    if (latest && event.count > 1 && alike(latest, event)) this.#events.pop();
    this.#events.push(event);
  }

  /** How many happened since these were last looked at. */
  unseen(node) {
    return Math.max(0, (this.#app.nodes.known(node)?.counts?.events ?? 0) - (this.#seen.get(node) ?? 0));
  }

  draw({ node, params }) {
    const level = params.level in LEVELS ? params.level : "info";
    const all = this.#node === node ? this.#events : [];
    const shown = all.filter((event) => LEVELS[event.level] >= LEVELS[level]).reverse();
    const count = (least) => all.filter((event) => LEVELS[event.level] >= LEVELS[least]).length;
    const choice = (value, label) =>
      html`<a
        href=${this.#app.link({ level: value === "info" ? null : value })}
        aria-current=${value === level ? "true" : nothing}
        >${label} <span>${count(value)}</span></a
      >`;
    return html` <h1 class="hidden">Events</h1>
      <div class="bar">
        <div class="segments" role="group" aria-label="Which events">
          ${choice("info", "All")}${choice("warning", "Warnings and errors")}${choice("error", "Errors")}
        </div>
        <span class="note">the last ${counted(shown.length, "event")}, the newest first</span>
      </div>
      ${shown.length ? eventList(this.#app, shown) : NOTHING}`;
  }
}

const NOTHING = html`<p class="empty">Nothing happened that is worth a line.</p>`;

export const eventList = (app, events) =>
  html`<ol class="events">
    ${repeat(
      events,
      (event) => event.seq,
      (event) => line(app, event),
    )}
  </ol>`;

function line(app, event) {
  return html`<li class=${event.level}>
    <time datetime=${isoTime(event.at)}>${clock(event.at)}</time>
    <span class="level" title=${event.level}
      ><span aria-hidden="true">${SIGN[event.level]}</span><span class="hidden">${event.level}</span></span
    >
    <span class="kind">${event.kind}${event.count > 1 ? times(event.count) : nothing}</span>
    <span class="what">${event.text}</span>
    <span class="who"
      >${event.process ? processLink(app, event.process) : nothing}${event.pool ? poolLink(app, event.pool) : nothing}</span
    >
  </li>`;
}

const times = (count) => html` <span class="badge" title="alike, one after the other">×${count}</span>`;

const poolLink = (app, pool) => html` <a href=${app.pathTo("pools", { pool })}>pool ${pool}</a>`;

const alike = (a, b) =>
  a.kind === b.kind && a.text === b.text && a.pool === b.pool && a.process?.id === b.process?.id;
