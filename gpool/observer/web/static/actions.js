// What may be done to the observed process, if its agent and this server both allow it: asked back first, by name.
//
// The page only hides what is not allowed; the node checks every request again.

import { html, nothing } from "./template.js";
import { get, nodePath, post } from "./api.js";

const PATIENCE = 120; // times half a second: then we stop asking how it went

const OF_A_CHILD = [
  { verb: "Restart", action: "restart_child", detail: "Its supervisor stops it, and it is started again." },
  {
    verb: "Stop",
    action: "stop_child",
    detail: "Its supervisor stops it, and does not start it again until it is told to.",
  },
];
const KILL = {
  verb: "Kill",
  action: "kill",
  danger: true,
  detail: "It gets the exit signal 'kill', which it cannot trap. Its supervisor may start it again.",
};
const ofPool = (pool) => [
  {
    verb: "Resize",
    action: "resize",
    detail: "More workers start when they are needed; surplus ones stop when they come back.",
    fields: [
      { name: "size", label: "Size", value: pool.size, step: 1 },
      { name: "max_overflow", label: "Overflow, at most", value: pool.max_overflow, step: 1 },
    ],
  },
  {
    verb: "Recycle",
    action: "recycle",
    detail: "Every worker is replaced by a new one, spread over this time.",
    fields: [{ name: "within", label: "Within seconds", value: 10 }],
  },
  pool.suspended
    ? { verb: "Resume", action: "resume", detail: "Those who wait are served again." }
    : {
        verb: "Suspend",
        action: "suspend",
        detail: "Nobody is given a worker until it is resumed: clients wait.",
      },
  pool.phase === "up"
    ? {
        verb: "Drain",
        action: "drain",
        danger: true,
        question: "and let nobody in any more",
        detail: "New checkouts are refused; those who hold a worker may finish. It stays so until it is opened.",
        fields: [{ name: "timeout", label: "Seconds to finish", value: 30 }],
      }
    : { verb: "Open", action: "open", detail: "Clients are let in again." },
];

export class Actions {
  #app;
  #asking = null; // {verb, detail, fields, title, body, node}: what the dialog asks
  #outcome = null; // {state, text} of the last action

  constructor(app) {
    this.#app = app;
  }

  get allowed() {
    return this.#app.nodes.forwardsActions && this.#app.node?.actions === true;
  }

  forProcess({ label, pid, id, supervisor }) {
    const child = { supervisor: supervisor?.id, process: id, confirm: pid };
    return this.#buttons(html`${label} ${pid}`, [
      ...(supervisor ? OF_A_CHILD.map((one) => [one, child]) : []),
      [KILL, { process: id, confirm: pid }],
    ]);
  }

  forPool(pool) {
    const body = { pool: pool.name, confirm: pool.name };
    return this.#buttons(
      html`pool ${pool.name}`,
      ofPool(pool).map((one) => [one, body]),
    );
  }

  #buttons(named, choices) {
    if (!this.allowed) return nothing;
    return html`<div class="actions" role="group" aria-label="Actions">
      ${choices.map(([one, body]) => {
        const question = html`${one.verb} ${named}${one.question ? `, ${one.question}` : ""}?`;
        const ask = () => this.#ask(one, question, { action: one.action, ...body });
        return html`<button type="button" class=${one.danger ? "danger" : ""} @click=${ask}>
          ${one.verb} …
        </button>`;
      })}
    </div>`;
  }

  /** A child without a process can be started again, from the tree only: it has no window. */
  restartStopped(supervisor, { label, child_id: child }) {
    if (!this.allowed || supervisor?.id == null || child === null) return;
    const detail = html`It is a child of ${supervisor.label}, and has no process.`;
    const body = { action: "restart_child", supervisor: supervisor.id, child, confirm: child };
    this.#ask({ verb: "Start", detail }, html`Start ${label} ${child} again?`, body);
  }

  #ask(one, title, body) {
    this.#asking = { fields: [], ...one, title, body, node: this.#app.route.node };
    this.#app.redraw();
  }

  dialog() {
    const { title, detail, verb, fields, node } = this.#asking ?? { fields: [] };
    return html`<dialog
      aria-labelledby="ask-title"
      aria-describedby="ask-detail"
      @close=${() => this.#closed()}
    >
      <h2 id="ask-title">${title}</h2>
      <p id="ask-detail">${detail} <span class="dim">Node ${node}.</span></p>
      ${fields.map((field) => this.#field(field))}
      <div class="actions">
        <button type="button" autofocus @click=${() => dialogElement().close()}>Cancel</button>
        <button type="button" class="danger" @click=${() => this.#confirmed()}>${verb}</button>
      </div>
    </dialog>`;
  }

  #field({ name, label, value, step = "any" }) {
    const key = (event) => event.key === "Enter" && this.#confirmed();
    return html`<label class="field">
      <span>${label}</span>
      <input type="number" name=${name} min="0" step=${step} .value=${String(value)} @keydown=${key} />
    </label>`;
  }

  /** After every drawing: a dialog that is asked for must be opened by hand to be modal. */
  drawn() {
    if (this.#asking && !dialogElement().open) dialogElement().showModal();
  }

  #closed() {
    this.#asking = null;
    this.#app.redraw();
  }

  #confirmed() {
    const { body, node } = this.#asking;
    const inputs = [...dialogElement().querySelectorAll("input")];
    if (!inputs.every((input) => input.reportValidity())) return;
    const filled = Object.fromEntries(inputs.map((input) => [input.name, Number(input.value)]));
    dialogElement().close();
    this.#run(node, { ...body, ...filled });
  }

  async #run(node, body) {
    try {
      let { action } = await post(nodePath(node, "actions"), body);
      this.#tell(action);
      for (let i = 0; action.state === "running" && i < PATIENCE; i++) {
        await new Promise((resolve) => setTimeout(resolve, 500));
        ({ action } = await get(nodePath(node, `actions/${action.id}`)));
        this.#tell(action);
      }
    } catch (error) {
      this.#tell({ state: "failed", text: error.message });
    }
    this.#app.wake();
  }

  #tell({ state, text }) {
    if (this.#outcome?.text !== text || this.#outcome.state !== state)
      this.#app.announce(`${state}: ${text}`);
    this.#outcome = { state, text };
    this.#app.redraw();
  }

  outcome() {
    if (!this.#outcome) return nothing;
    const { state, text } = this.#outcome;
    const dismiss = () => {
      this.#outcome = null;
      this.#app.redraw();
    };
    return html`<p class="banner ${state === "failed" ? "bad" : state === "done" ? "good" : "calm"}">
      <strong>${state}</strong> ${text}
      <button type="button" class="quiet" aria-label="Dismiss" @click=${dismiss}>✕</button>
    </p>`;
  }
}

const dialogElement = () => document.querySelector("dialog");
