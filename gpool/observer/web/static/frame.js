// What stands around every view: how often it asks, and what is wrong.

import { html, nothing } from "./template.js";
import { seconds } from "./format.js";
import { PACES, pace, setPace } from "./poll.js";

/** Pause, and the choice of the pace. */
export function paceControl(app, polls) {
  const set = (changes) => {
    setPace(changes);
    if (!pace.paused) app.wake();
    app.redraw();
  };
  const failing = Object.values(polls).find((poll) => poll.failing)?.failing;
  const state = failing ? "failing" : pace.paused ? "paused" : "fresh";
  return html` <div class="pace" role="group" aria-label="Refresh">
    <span class="pulse ${state}">${{ failing: "no answer", paused: "paused", fresh: "live" }[state]}</span>
    <label
      ><span class="hidden">Refresh every</span>
      <select @change=${(event) => set({ seconds: Number(event.target.value) })}>
        ${PACES.map((n) => html`<option value=${n} .selected=${pace.seconds === n}>${n} s</option>`)}
      </select>
    </label>
    <button type="button" aria-pressed=${pace.paused} @click=${() => set({ paused: !pace.paused })}>
      ${pace.paused ? "Resume" : "Pause"}
    </button>
  </div>`;
}

/** "No answer since 12 s", calmly: what is on the screen stays. */
export function troubles(app, polls) {
  if (app.nodes.isGone(app.route.node)) return nothing; // said by its own banner
  const failing = (polls.view.failing || polls.window.failing) ?? polls.nodes.failing;
  if (!failing) return nothing;
  return html`<p class="banner calm">
    No answer since ${seconds(Math.max(1, (Date.now() - failing.since) / 1000))}: ${failing.message}. What you
    see is older; we keep asking.
  </p>`;
}

/** Text with lines of its own: a stack, a state. */
export const preformatted = (text, name) =>
  html`<pre class="stack" tabindex="0" role="region" aria-label=${name}>${text}</pre>`;
