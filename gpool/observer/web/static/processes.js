// The table of processes: sorted and filtered by the server, a page at a time.

import { html, nothing } from "./template.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";
import { nodePath } from "./api.js";
import { brief, counted, number, seconds } from "./format.js";
import { searchBox } from "./search.js";
import { badge, status } from "./status.js";

const NUMBER = "n";
const LIVE = [
  ["id", "Pid", NUMBER],
  ["label", "Name or Initial Func"],
  ["current_function", "Current Function"],
  ["status", "Status"],
  ["mailbox", "Mailbox", NUMBER],
  ["restarts", "Restarts", NUMBER],
  ["links", "Links", NUMBER],
  ["monitors", "Monitors", NUMBER],
  ["monitored_by", "Monitored by", NUMBER],
  ["age", "Age", NUMBER],
];
const DEAD = [
  ["id", "Pid", NUMBER],
  ["label", "Name or Initial Func"],
  ["", "Exit reason"],
  ["status", "Status"],
  ["restarts", "Restarts", NUMBER],
  ["age", "Lived", NUMBER],
  ["", "Ended", NUMBER],
];
const WHICH = { live: LIVE, ended: DEAD, zombies: DEAD };
const DEFAULT_SORT = { live: ["label", "asc"], ended: ["id", "desc"], zombies: ["id", "desc"] }; // the latest first
const PER = [50, 100, 250, 500];

export class Processes {
  #app;
  #answer = null;
  #asked = null; // the node and the set that #answer is of

  constructor(app) {
    this.#app = app;
  }

  path({ node, params }) {
    const { which, sort, order, filter, page, per } = wanted(params);
    return nodePath(node, "processes", { which, sort, order, filter, page, per });
  }

  take(answer, { node, params }) {
    this.#answer = answer;
    this.#asked = `${node} ${wanted(params).which}`;
    if (answer.page > answer.pages) this.#app.go({ page: answer.pages }, { replace: true });
  }

  draw(route) {
    const ask = wanted(route.params);
    const answer = this.#asked === `${route.node} ${ask.which}` ? this.#answer : null;
    return html` <h1 class="hidden">Processes</h1>
      <div class="bar">
        ${this.#choice(ask)}
        ${searchBox(this.#app, "Filter processes", ask.filter, (filter) => ({ filter, page: null }))}
        <span class="note grow">${answer ? worded(answer) : "asking …"}</span>
        ${answer && answer.pages > 1 ? this.#pager(answer) : nothing}
        <label class="per"
          ><span>Rows</span>
          <select @change=${(event) => this.#app.go({ per: event.target.value, page: null })}>
            ${PER.map((n) => html`<option value=${n} .selected=${n === ask.per}>${n}</option>`)}
          </select></label
        >
      </div>
      ${answer ? this.#table(answer, ask, route) : nothing}`;
  }

  #choice(ask) {
    const counts = this.#app.node?.counts ?? {};
    const one = (which, label, count) =>
      html`<a
        href=${this.#app.link({ which: which === "live" ? null : which, sort: null, order: null, page: null })}
        aria-current=${which === ask.which ? "true" : nothing}
        class=${which === "zombies" && count ? "alarm" : ""}
        >${label} <span>${number(count)}</span></a
      >`;
    return html`<div class="segments" role="group" aria-label="Which processes">
      ${one("live", "Live", counts.processes)}${one("ended", "Ended", counts.ended)}
      ${one("zombies", "Zombies", counts.zombies)}
    </div>`;
  }

  #pager({ page, pages }) {
    const to = (target, label, word) =>
      target < 1 || target > pages || target === page
        ? html`<span class="button off" aria-hidden="true">${label}</span>`
        : html`<a class="button" href=${this.#app.link({ page: target })} aria-label=${word}>${label}</a>`;
    return html`<nav class="pager" aria-label="Pages">
      ${to(1, "«", "first page")}${to(page - 1, "‹", "previous page")}
      <span>${number(page)} / ${number(pages)}</span>
      ${to(page + 1, "›", "next page")}${to(pages, "»", "last page")}
    </nav>`;
  }

  #table(answer, ask, route) {
    const columns = WHICH[ask.which];
    if (!answer.processes.length) return html`<p class="empty">${nobody(ask)}</p>`;
    return html`<div class="scroll" tabindex="0" role="region" aria-label="Processes" data-place>
      <table class="processes">
        <thead>
          <tr>
            ${columns.map((column) => this.#header(column, ask))}
          </tr>
        </thead>
        <tbody>
          ${repeat(
            answer.processes,
            (row) => row.id,
            (row) => this.#row(row, ask.which, String(row.id) === route.params.pid),
          )}
        </tbody>
      </table>
    </div>`;
  }

  #header([key, label, kind], { sort, order }) {
    if (!key) return html`<th scope="col" class=${kind ?? ""}>${label}</th>`;
    const current = key === sort;
    const next = current
      ? order === "asc"
        ? "desc"
        : "asc"
      : kind === NUMBER && key !== "id"
        ? "desc"
        : "asc";
    return html`<th scope="col" class=${kind ?? ""} aria-sort=${current ? `${order}ending` : nothing}>
      <button
        type="button"
        @click=${() => this.#app.go({ sort: key, order: next, page: null }, { replace: true })}
      >
        ${label}<span class="arrow" aria-hidden="true">${current ? (order === "asc" ? "▲" : "▼") : ""}</span>
      </button>
    </th>`;
  }

  #row(row, which, open) {
    const name = html`<th scope="row" class="text">
      <a href=${this.#app.link({ pid: row.id })}>${row.label}</a>
    </th>`;
    const click = (event) => this.#clicked(event, row.id);
    if (which !== "live") {
      return html`<tr class=${open ? "open" : ""} @click=${click}>
        <td class="n">${row.pid}</td>
        ${name}
        <td class="text">${row.reason ?? "–"}</td>
        <td>${status(row.status)}</td>
        <td class="n">${row.restarts ?? "–"}</td>
        <td class="n">${seconds(row.age)}</td>
        <td class="n">${row.ended === null ? "–" : `${seconds(row.ended)} ago`}</td>
      </tr>`;
    }
    return html`<tr class=${open ? "open" : ""} @click=${click}>
      <td class="n">${row.pid}</td>
      ${name}
      <td class="text code" title=${row.current_function ?? nothing}>${brief(row.current_function)}</td>
      <td>${status(row.status)}</td>
      <td class="n ${row.mailbox ? "" : "zero"}">${number(row.mailbox)}</td>
      <td class="n">
        ${row.restarts === null ? UNSUPERVISED : row.restarts ? badge(row.restarts) : html`<span class="zero">0</span>`}
      </td>
      <td class="n ${row.links ? "" : "zero"}">${number(row.links)}</td>
      <td class="n ${row.monitors ? "" : "zero"}">${number(row.monitors)}</td>
      <td class="n ${row.monitored_by ? "" : "zero"}">${number(row.monitored_by)}</td>
      <td class="n">${seconds(row.age)}</td>
    </tr>`;
  }

  /** A click anywhere in the row opens the window, unless it was one to select text. */
  #clicked(event, id) {
    if (!event.target.closest("a") && getSelection().isCollapsed) this.#app.go({ pid: id });
  }
}

const UNSUPERVISED = html`<span class="dim" title="nobody supervises it">–</span>`;

function wanted({ which, sort, order, filter = "", page, per }) {
  const set = which in WHICH ? which : "live";
  const [key, direction] = DEFAULT_SORT[set];
  const known = WHICH[set].some(([column]) => column && column === sort);
  return {
    which: set,
    sort: known ? sort : key,
    order: order === "asc" || order === "desc" ? order : direction,
    filter,
    page: Math.max(1, Math.trunc(Number(page)) || 1),
    per: PER.includes(Number(per)) ? Number(per) : 100,
  };
}

function worded({ total, page, per, processes, filter }) {
  const first = (page - 1) * per + 1;
  const all = `${counted(total, "process", "processes")}${filter ? " found" : ""}`;
  return total > per ? `${number(first)}–${number(first + processes.length - 1)} of ${all}` : all;
}

function nobody({ which, filter }) {
  if (filter) return `No process here contains “${filter}”.`;
  return {
    live: "No processes.",
    ended: "No process has ended lately.",
    zombies: "No zombies: every process that was told to exit did.",
  }[which];
}
