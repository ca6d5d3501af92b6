// What may be done to the observed process, if its agent and this server both allow it: asked back first, by name.
//
// The page only hides what is not allowed; the node checks every request again.

import { html, nothing } from "./vendor/lit-html/lit-html.js";
import { get, nodePath, post } from "./api.js";

const PATIENCE = 120; // times half a second: then we stop asking how it went

export class Actions {
  #app;
  #asking = null; // {title, detail, verb, body, fields}: what the dialog asks
  #outcome = null; // {state, text} of the last action

  constructor(app) {
    this.#app = app;
  }

  get allowed() {
    return this.#app.nodes.forwardsActions && this.#app.node?.actions === true;
  }

  forProcess(process) {
    if (!this.allowed) return nothing;
    const named = `${process.label} ${process.pid}`;
    const child = { supervisor: process.supervisor?.id, process: process.id, confirm: process.pid };
    const ask = (verb, detail, body) => () => this.ask({ title: `${verb} ${named}?`, detail, verb, body });
    return html`<div class="actions" role="group" aria-label="Actions">
      ${process.supervisor ? html`
        <button type="button" @click=${ask("Restart", "Its supervisor stops it and starts it again.", { action: "restart_child", ...child })}>Restart child …</button>
        <button type="button" @click=${ask("Stop", "Its supervisor stops it, and does not start it again until it is told to.", { action: "stop_child", ...child })}>Stop child …</button>` : nothing}
      <button type="button" class="danger" @click=${ask("Kill", "It gets the exit signal 'kill', which it cannot trap. What is linked to it gets 'killed'; its supervisor may start it again.", { action: "kill", process: process.id, confirm: process.pid })}>Kill …</button></div>`;
  }

  /** A child without a process can be started again, from the tree only: it has no window. */
  restartStopped(supervisor, node) {
    if (!this.allowed || supervisor?.id == null || node.child_id === null) return;
    const body = { action: "restart_child", supervisor: supervisor.id, child: node.child_id, confirm: node.child_id };
    this.ask({ title: `Start ${node.label} ${node.child_id} again?`, detail: `It is a child of ${supervisor.label}, and has no process.`, verb: "Restart", body });
  }

  forPool(pool) {
    if (!this.allowed) return nothing;
    const { name } = pool;
    const ask = (verb, detail, body, fields) => () => this.ask({ title: `${verb} pool ${name}?`, detail, verb, body: { ...body, pool: name, confirm: name }, fields });
    return html`<div class="actions" role="group" aria-label="Actions">
      <button type="button" @click=${ask("Resize", "More workers start when they are needed; surplus ones stop when they come back.", { action: "resize" }, [
        { name: "size", label: "Size", value: pool.size, min: 0, step: 1 },
        { name: "max_overflow", label: "Overflow, at most", value: pool.max_overflow, min: 0, step: 1 },
      ])}>Resize …</button>
      <button type="button" @click=${ask("Recycle", "Every worker is replaced by a new one, spread over this time.", { action: "recycle" }, [{ name: "within", label: "Within seconds", value: 10, min: 0 }])}>Recycle …</button>
      ${pool.suspended
        ? html`<button type="button" @click=${ask("Resume", "Those who wait are served again.", { action: "resume" })}>Resume …</button>`
        : html`<button type="button" @click=${ask("Suspend", "Nobody is given a worker until it is resumed: clients wait.", { action: "suspend" })}>Suspend …</button>`}
      <button type="button" class="danger" @click=${ask("Drain", "New checkouts are refused; those who hold a worker may finish. A drained pool stays closed.", { action: "drain" }, [{ name: "timeout", label: "Seconds to finish", value: 30, min: 0 }])}>Drain …</button></div>`;
  }

  ask(request) {
    this.#asking = { fields: [], ...request, node: this.#app.route.node };
    this.#app.redraw();
  }

  dialog() {
    const { title, detail, verb, fields, node } = this.#asking ?? { fields: [] };
    return html`<dialog aria-labelledby="ask-title" aria-describedby="ask-detail" @close=${() => this.#closed()}>
      <h2 id="ask-title">${title}</h2>
      <p id="ask-detail">${detail} <span class="dim">Node ${node}.</span></p>
      ${fields.map((field) => html`<label class="field"><span>${field.label}</span> <input type="number" name=${field.name} min=${field.min} step=${field.step ?? "any"} .value=${String(field.value)} @keydown=${(event) => event.key === "Enter" && this.#confirmed()}></label>`)}
      <div class="actions"><button type="button" autofocus @click=${() => dialogElement().close()}>Cancel</button>
        <button type="button" class="danger" @click=${() => this.#confirmed()}>${verb}</button></div>
    </dialog>`;
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
    if (this.#outcome?.text !== text || this.#outcome.state !== state) this.#app.announce(`${state}: ${text}`);
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
    return html`<p class="banner ${state === "failed" ? "bad" : state === "done" ? "good" : "calm"}"><strong>${state}</strong> ${text} <button type="button" class="quiet" aria-label="Dismiss" @click=${dismiss}>✕</button></p>`;
  }
}

const dialogElement = () => document.querySelector("dialog");
