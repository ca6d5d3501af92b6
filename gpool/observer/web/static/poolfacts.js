// What is said of a pool in few words, in its card and above its details.

import { html, nothing } from "./template.js";
import { number, seconds } from "./format.js";

// What is worth a look when it is not 0.
const COUNTERS = [
  ["timed_out", "timed out"],
  ["refused", "refused"],
  ["failed_fast", "failed fast"],
  ["deadlocks", "deadlocks"],
  ["cancelled", "cancelled"],
  ["stale", "stale"],
  ["reclaimed", "reclaimed"],
  ["overheld", "held too long"],
  ["revoked", "revoked"],
  ["start_failures", "starts failed"],
  ["unclosed", "unclosed"],
  ["lost", "lost"],
];

/** An outage: nothing is refused yet, so it is up, but it has no worker and cannot start one. */
const startsFail = ({ phase, breaker, idle, busy, finishing, resetting }) =>
  phase === "up" && breaker !== "closed" && idle + busy + finishing + resetting === 0;

/** Its state in words; what is out of the ordinary stands out. */
export function state(pool) {
  const { phase, suspended, healthy, breaker } = pool;
  const word = startsFail(pool) ? "starts fail" : pool.state;
  const kind = { ready: "good", overflow: "good", full: "warn" }[word] ?? "bad";
  return html`<span class="tags">
    <span class="tag ${kind}">${word}</span>
    ${phase !== "up" && phase !== word ? html`<span class="tag bad">${phase}</span>` : nothing}
    ${suspended ? html`<span class="tag warn">suspended</span>` : nothing}
    ${breaker === "closed" ? nothing : html`<span class="tag bad">breaker ${breaker.replace("_", " ")}</span>`}
    ${healthy ? nothing : html`<span class="tag bad">not healthy</span>`}</span
  >`;
}

export const facts = (pool) =>
  html`<dl class="facts">
    <div>
      <dt>Waiting</dt>
      <dd class=${pool.waiting ? "warn-text" : ""}>
        ${number(pool.waiting)}
        ${pool.waiting ? html`<span class="dim">for ${seconds(pool.oldest_wait)}</span>` : nothing}
      </dd>
    </div>
    <div>
      <dt>Oldest hold</dt>
      <dd>${seconds(pool.oldest_hold)}</dd>
    </div>
    <div>
      <dt>Breaker</dt>
      <dd>${pool.breaker.replace("_", " ")}</dd>
    </div>
    <div>
      <dt>Phase</dt>
      <dd>${pool.phase}</dd>
    </div>
    <div>
      <dt>Epoch</dt>
      <dd>${number(pool.epoch)}</dd>
    </div>
  </dl>`;

export function counters(pool) {
  const some = COUNTERS.filter(([key]) => pool[key]);
  if (!some.length) return nothing;
  return html`<ul class="counters" aria-label="Since it was started">
    ${some.map(([key, label]) => html`<li><strong>${number(pool[key])}</strong> ${label}</li>`)}
  </ul>`;
}

export const startFailure = ({ last_start_failure: text }) =>
  text === null ? nothing : html`<p class="reason"><span>Last start failure</span> <code>${text}</code></p>`;
