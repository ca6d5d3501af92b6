// The nodes of this host: which to look at, which hub is blocked and where, and what all of them have together.

import { html, nothing } from "./template.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";
import { counted, number, seconds } from "./format.js";
import { preformatted } from "./frame.js";
import { format } from "./route.js";

export class Nodes {
  forwardsActions = false;

  #app;
  #nodes = null; // Map: name → its last answer; null: not asked yet
  #gone = new Map(); // name → its last answer
  #blocked = new Set(); // those that we have said to be blocked

  constructor(app) {
    this.#app = app;
  }

  path = () => "nodes";

  take({ nodes, actions }) {
    const [isFirst, before] = [this.#nodes === null, this.#nodes ?? new Map()];
    this.forwardsActions = actions === true;
    this.#nodes = new Map(nodes.map((node) => [node.node, node]));
    for (const [name, last] of before) if (!this.#nodes.has(name)) this.#gone.set(name, last);
    for (const name of this.#nodes.keys()) this.#gone.delete(name);
    for (const node of nodes) this.#sayIfBlocked(node.node, node.hub);
    if (isFirst && nodes.length === 1 && !nodes[0].error) this.#app.start(nodes[0].node);
  }

  /** Any answer of a node tells of its hub, sooner than the next list does. */
  heard(name, { hub, now }) {
    const node = this.known(name);
    if (!node || !hub) return;
    Object.assign(node, { hub, now });
    this.#sayIfBlocked(name, hub);
  }

  #sayIfBlocked(name, hub) {
    const blocked = hub?.blocked === true;
    if (blocked && !this.#blocked.has(name)) this.#app.announce(`The hub of node ${name} is blocked`);
    if (blocked) this.#blocked.add(name);
    else this.#blocked.delete(name);
  }

  known = (name) => this.#nodes?.get(name);

  isGone = (name) => name !== null && this.#nodes !== null && !this.#nodes.has(name);

  picker({ node: chosen, view }) {
    if (!this.#nodes) return html`<span class="picker"></span>`;
    const names = [...this.#nodes.keys()];
    if (chosen && !names.includes(chosen)) names.push(chosen);
    const choose = (event) => (location.hash = format({ node: event.target.value, view }));
    return html`<label class="picker"
      ><span>Node</span>
      <select @change=${choose}>
        <option value="" .selected=${!chosen}>all nodes (${this.#nodes.size})</option>
        ${repeat(
          names,
          (name) => name,
          (name) => html`<option value=${name} .selected=${name === chosen}>${this.#worded(name)}</option>`,
        )}
      </select></label
    >`;
  }

  #worded(name) {
    const node = this.known(name);
    if (!node) return `${name} · gone`;
    if (node.error) return `${name} · ${node.error}`;
    return `${name} · ${node.hub?.blocked ? "hub blocked · " : ""}${node.title}`;
  }

  banners({ node: name }) {
    if (this.isGone(name)) {
      return html`<p class="banner bad">
        <strong>Node ${name} went away.</strong> It ended, or it was started without the Observer's agent.
        What you see is its last answer. <a href="#/">All nodes</a>
      </p>`;
    }
    const shown = name ? [this.known(name)].filter(Boolean) : [...(this.#nodes?.values() ?? [])];
    return repeat(
      shown.filter((node) => node.hub?.blocked),
      (node) => node.node,
      blockedBanner,
    );
  }

  draw() {
    if (!this.#nodes) return html`<p class="empty">Looking for nodes …</p>`;
    const nodes = [...this.#nodes.values()];
    const gone = [...this.#gone.values()];
    return html` <h1>All nodes</h1>
      ${nodes.length + gone.length ? this.#table(nodes, gone) : NOBODY}
      ${caps(nodes.filter((node) => node.caps))}`;
  }

  #table(nodes, gone) {
    return html`<div class="scroll" tabindex="0" role="region" aria-label="Nodes">
      <table>
        <thead>
          <tr>
            <th scope="col">Node</th>
            <th scope="col">Title</th>
            <th scope="col">Hub</th>
            <th scope="col" class="n">Up</th>
            <th scope="col" class="n">Processes</th>
            <th scope="col" class="n">Zombies</th>
            <th scope="col" class="n">Ended</th>
            <th scope="col" class="n">Pools</th>
            <th scope="col" class="n">Events</th>
            <th scope="col">Versions</th>
          </tr>
        </thead>
        <tbody>
          ${repeat(nodes, (node) => node.node, row)}
          ${repeat(
            gone,
            (node) => node.node,
            (node) =>
              html`<tr class="dim">
                <th scope="row">${node.node}</th>
                <td>${node.title}</td>
                <td colspan="8">went away</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>`;
  }
}

const NOBODY = html`<p class="empty">
  No observed process runs on this host as this user. Start one with <code>gpool.observer.start()</code>.
</p>`;

const hub = ({ blocked, seconds: since }) =>
  blocked
    ? html`<strong class="bad-text">blocked ${seconds(since)}</strong>`
    : html`<span class="good-text">free</span>`;

function row(node) {
  const link = html`<a href=${format({ node: node.node, view: "tree" })}>${node.node}</a>`;
  if (node.error)
    return html`<tr>
      <th scope="row">${link}</th>
      <td colspan="9" class="bad-text">${node.error}</td>
    </tr>`;
  const { counts } = node;
  return html`<tr>
    <th scope="row">
      ${link}${String(node.os_pid) === node.node ? nothing : html` <span class="dim">pid ${node.os_pid}</span>`}
    </th>
    <td class="text">${node.title}</td>
    <td>${hub(node.hub)}</td>
    <td class="n">${seconds(node.now - node.started_at)}</td>
    <td class="n">${number(counts.processes)}</td>
    <td class="n">
      ${counts.zombies ? html`<strong class="bad-text">${number(counts.zombies)}</strong>` : 0}
    </td>
    <td class="n">${number(counts.ended)}</td>
    <td class="n">${number(counts.pools)}</td>
    <td class="n">${number(counts.events)}</td>
    <td class="dim">Python ${node.python}, gevent ${node.gevent}, gpool ${node.gpool}</td>
  </tr>`;
}

/** Pools of one name draw on one database: what it sees is their sum. */
function caps(nodes) {
  const sums = new Map(); // pool → [sum, number of nodes, …]
  for (const node of nodes) {
    for (const [pool, cap] of Object.entries(node.caps)) {
      const [sum, count] = sums.get(pool) ?? [0, 0];
      sums.set(pool, [sum + cap, count + 1]);
    }
  }
  if (!sums.size) return nothing;
  const rows = [...sums].sort(([a], [b]) => a.localeCompare(b));
  return html` <h2>Pools over all nodes</h2>
    <p class="note">
      Each node has pools of its own. What a database must admit is the sum of their caps (size +
      max_overflow).
    </p>
    <div class="scroll" tabindex="0" role="region" aria-label="Caps">
      <table class="narrow">
        <thead>
          <tr>
            <th scope="col">Pool</th>
            <th scope="col" class="n">On</th>
            <th scope="col" class="n">Sum of caps</th>
          </tr>
        </thead>
        <tbody>
          ${repeat(
            rows,
            ([pool]) => pool,
            ([pool, [sum, count]]) =>
              html`<tr>
                <th scope="row">${pool}</th>
                <td class="n">${counted(count, "node")}</td>
                <td class="n"><strong>${number(sum)}</strong></td>
              </tr>`,
          )}
        </tbody>
      </table>
    </div>`;
}

function blockedBanner({ node, hub }) {
  return html`<section class="banner bad" aria-label="Blocked hub of node ${node}">
    <p>
      <strong>Node ${node}: hub blocked ${seconds(hub.seconds)}</strong
      >${hub.stack.length ? html` in <code>${hub.stack.at(-1)}</code>` : nothing}
    </p>
    <p class="note">
      No greenlet of that process runs until this returns. It is read from outside meanwhile: what you see is
      of no single moment.
    </p>
    ${
      hub.stack.length > 1
        ? html`<details>
            <summary>Where: the whole stack</summary>
            ${preformatted(hub.stack.join("\n"), "Stack of the blocked hub")}
          </details>`
        : nothing
    }
  </section>`;
}
