// A process's window: all that is known of it, and every name in it a link.
//
// Its mailbox and its state are asked for on demand only: they may be long, and may hold what nobody should read
// over a shoulder.  A process that died keeps its window, even when its node has forgotten it.

import { html, nothing } from "./template.js";
import { get, nodePath } from "./api.js";
import { clock, counted, number, pid, seconds } from "./format.js";
import { preformatted } from "./frame.js";
import { processLink, processList } from "./link.js";
import { badge, status } from "./status.js";

const KEPT = 50; // last answers
const MESSAGES = 20; // asked for at once

export class ProcessWindow {
  #app;
  #last = new Map(); // "node/id" → {process, at}, the oldest first
  #forgotten = new Set(); // "node/id" of those that their node does not know
  #asked = {}; // what was asked for on demand: {key, messages, state}

  constructor(app) {
    this.#app = app;
  }

  path({ node, params }) {
    return this.#forgotten.has(keyOf(node, params.pid))
      ? null
      : nodePath(node, `processes/${encodeURIComponent(params.pid)}`);
  }

  take({ process, now }, { node, params }) {
    const key = keyOf(node, params.pid);
    this.#last.delete(key);
    this.#last.set(key, { process, at: now });
    if (this.#last.size > KEPT) this.#last.delete(this.#last.keys().next().value);
  }

  refused(error, { node, params }) {
    const unknown = error.fromNode && (error.status === 404 || error.status === 400);
    if (unknown) this.#forgotten.add(keyOf(node, params.pid));
    return unknown;
  }

  /** What was last heard of the process that is open, or undefined. */
  shown = ({ node, params }) => this.#last.get(keyOf(node, params.pid))?.process;

  title(route) {
    const process = this.shown(route);
    const name = process ? `${process.label} ${process.pid}` : pid(route.params.pid);
    return this.#isDead(route) ? `${name} *DEAD*` : isZombie(process) ? `${name} *ZOMBIE*` : name;
  }

  #isDead(route) {
    return this.#forgotten.has(keyOf(route.node, route.params.pid)) || this.shown(route)?.status === "dead";
  }

  focus() {
    document.getElementById("window-title")?.focus({ preventScroll: !this.#app.narrow });
  }

  draw(route) {
    const process = this.shown(route);
    const forgotten = this.#forgotten.has(keyOf(route.node, route.params.pid));
    return html`<aside
      class="window ${this.#isDead(route) ? "is-dead" : ""}"
      aria-labelledby="window-title"
      data-place
      tabindex="-1"
    >
      <header>
        <h2 id="window-title" tabindex="-1">
          ${process ? html`${process.label} <span class="pid">${process.pid}</span>` : pid(route.params.pid)}
          ${this.#isDead(route) ? ending("*DEAD*") : isZombie(process) ? ending("*ZOMBIE*") : nothing}
        </h2>
        <a class="button close" href=${this.#app.link({ pid: null })} aria-label="Close the window">✕</a>
      </header>
      ${process ? this.#known(process, forgotten, route) : html`<p class="empty">${whyNot(forgotten, route)}</p>`}
    </aside>`;
  }

  #known(process, forgotten, route) {
    const dead = this.#isDead(route) || isZombie(process); // there is no more to be asked or done
    const { at } = this.#last.get(keyOf(route.node, route.params.pid));
    return html`${forgotten ? html`<p class="note">Its node has forgotten it. Last answer: ${clock(at)}.</p>` : nothing}
      ${dead || process.reason !== null ? reason(process) : nothing} ${isZombie(process) ? RUNS_ON : nothing}
      ${dead ? nothing : this.#app.actions.forProcess(process)} ${this.#overview(process)}
      ${this.#relations(process)} ${this.#mailbox(process, dead, route)} ${this.#state(process, dead, route)}
      <section>
        <h3>Stack</h3>
        ${
          process.stack.length
            ? preformatted(process.stack.join("\n"), "Stack")
            : html`<p class="note">none</p>`
        }
      </section>`;
  }

  #overview(process) {
    const row = (name, value) =>
      html`<div>
        <dt>${name}</dt>
        <dd>${value}</dd>
      </div>`;
    const supervised = process.supervisor !== null;
    const dead = process.status === "dead" || isZombie(process);
    return html`<section>
      <h3>Overview</h3>
      <dl>
        ${row("Status", status(process.status))}
        ${process.name !== null ? row("Name", process.name) : nothing}
        ${row("Initial call", html`<code>${process.initial_call}</code>`)}
        ${row("Current function", html`<code>${process.current_function || "–"}</code>`)}
        ${row("Parent", processLink(this.#app, process.parent))}
        ${process.ancestors.length ? row("Ancestors", processList(this.#app, process.ancestors)) : nothing}
        ${supervised ? row("Supervisor", processLink(this.#app, process.supervisor)) : nothing}
        ${supervised ? row("Child", html`<code>${process.child_id}</code>, a ${process.type ?? "worker"}`) : nothing}
        ${row("Restarts", process.restarts === null ? UNSUPERVISED : process.restarts ? badge(process.restarts) : 0)}
        ${process.strategy ? row("Strategy", html`<code>${process.strategy}</code>`) : nothing}
        ${process.pool ? row("Pool", this.#poolLink(process)) : nothing}
        ${row("Traps exits", process.trap_exit ? "yes" : "no")}
        ${row(dead ? "Lived" : "Age", seconds(process.age))}
        ${process.ended === null ? nothing : row("Ended", `${seconds(process.ended)} ago`)}
        ${
          [null, process.reason].includes(process.last_exit)
            ? nothing
            : row("Last exit", html`<code>${process.last_exit}</code>`)
        }
      </dl>
    </section>`;
  }

  #poolLink({ pool, id }) {
    return html`<a href=${this.#app.pathTo("pools", { pool, pid: id })}>${pool}</a>`;
  }

  #relations(process) {
    const one = (name, refs, more) =>
      html`<section>
        <h3>${name} <span class="dim">${number(refs.length + more)}</span></h3>
        ${
          refs.length
            ? html`<div class="short" tabindex="0" role="region" aria-label=${name}>
                ${processList(this.#app, refs, more)}
              </div>`
            : html`<p class="note">none</p>`
        }
      </section>`;
    return html`<div class="relations">
      ${one("Links", process.links, process.links_more)}
      ${one("Monitors", process.monitors, process.monitors_more)}
      ${one("Monitored by", process.monitored_by, process.monitored_by_more)}
    </div>`;
  }

  #mailbox(process, dead, route) {
    const { messages } = this.#onDemand(route);
    const ask = () => this.#ask(route, "messages", { limit: MESSAGES });
    const button = html`<button type="button" @click=${ask}>
      ${messages ? "Show the first again" : "Show the first messages"}
    </button>`;
    return html`<section>
      <h3>Mailbox</h3>
      <p>
        ${counted(process.mailbox, "message")} ${dead || (!process.mailbox && !messages) ? nothing : button}
      </p>
      ${shownOnDemand(messages, messageList)}
    </section>`;
  }

  #state(process, dead, route) {
    if (dead) return nothing;
    const { state } = this.#onDemand(route);
    const ask = () => this.#ask(route, "state");
    const button = html`<p>
      <button type="button" @click=${ask}>${state ? "Show it again" : "Show the state"}</button>
    </p>`;
    return html`<section>
      <h3>State</h3>
      ${process.state_shown ? button : HOW_TO_SHOW}
      ${shownOnDemand(state, (answer) => preformatted(answer.state, "State"))}
    </section>`;
  }

  #onDemand({ node, params }) {
    const key = keyOf(node, params.pid);
    if (this.#asked.key !== key) this.#asked = { key };
    return this.#asked;
  }

  async #ask(route, what, query) {
    const asked = this.#onDemand(route);
    try {
      asked[what] = {
        answer: await get(
          nodePath(route.node, `processes/${encodeURIComponent(route.params.pid)}/${what}`, query),
        ),
      };
    } catch (error) {
      asked[what] = { error: error.message };
    }
    this.#app.redraw();
  }
}

const isZombie = (process) => process?.status === "zombie";

const ending = (word) => html`<strong class="dead-title">${word}</strong>`;

const RUNS_ON = html`<p class="note">
  It was told to exit and counts as dead, but its greenlet swallowed its exit and runs on: its stack says where.
  Nothing can end it but itself, or the end of its system process.
</p>`;

const UNSUPERVISED = html`<span class="dim">nobody supervises it</span>`;

const HOW_TO_SHOW = html`<p class="note">
  Its owner does not show it, as states may hold secrets. A GenServer shows what its
  <code>format_status</code> returns: override that to show a state here.
</p>`;

/** What was answered, and when; or why it was not. */
function shownOnDemand(asked, draw) {
  if (!asked) return nothing;
  if (asked.error) return html`<p class="note">${asked.error}</p>`;
  return html`${draw(asked.answer)}
    <p class="note">at ${clock(asked.answer.now)}</p>`;
}

function messageList({ messages, length }) {
  const more = length - messages.length;
  return html`<ol class="messages">
    ${messages.map((text) => html`<li><code>${text}</code></li>`)}
    ${more > 0 ? html`<li class="dim">and ${number(more)} more</li>` : nothing}
  </ol>`;
}

const whyNot = (forgotten, { node, params }) =>
  forgotten
    ? `Node ${node} knows no process ${pid(params.pid)}: it never was, or it ended too long ago.`
    : "asking …";

const reason = (process) =>
  html`<p class="reason">
    <span>Exit reason</span> <code>${process.reason ?? "not known: it ended after this answer"}</code>
  </p>`;

const keyOf = (node, id) => `${node}/${id}`;
