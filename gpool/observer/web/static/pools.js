// The pools: one card each, or one pool with all that is known of it.

import { html, nothing } from "./vendor/lit-html/lit-html.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";
import { nodePath } from "./api.js";
import { number, seconds } from "./format.js";
import { processLink } from "./link.js";
import { PoolDetail } from "./pool.js";
import { occupancy } from "./occupancy.js";

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

export class Pools {
  #app;
  #node = null; // whose pools these are
  #pools = null;
  #detail;

  constructor(app) {
    this.#app = app;
    this.#detail = new PoolDetail(app);
  }

  path(route) {
    return route.params.pool ? this.#detail.path(route) : nodePath(route.node, "pools");
  }

  take(answer, route) {
    if (answer.pool) this.#detail.take(answer, route);
    else [this.#node, this.#pools] = [route.node, answer.pools];
  }

  refused(error, route) {
    return Boolean(route.params.pool) && this.#detail.refused(error, route);
  }

  draw(route) {
    if (route.params.pool) return this.#detail.draw(route);
    if (this.#node !== route.node)
      return html`<h1 class="hidden">Pools</h1>
        <p class="empty">asking …</p>`;
    return html` <h1 class="hidden">Pools</h1>
      ${
        this.#pools.length
          ? html`<div class="cards">
              ${repeat(
                this.#pools,
                (pool) => pool.name,
                (pool) => this.#card(pool),
              )}
            </div>`
          : html`<p class="empty">This node has no pools.</p>`
      }`;
  }

  #card(pool) {
    return html`<article class="card" aria-label="Pool ${pool.name}">
      <header>
        <h2><a href=${this.#app.link({ pool: pool.name })}>${pool.name}</a></h2>
        ${state(pool)}
      </header>
      ${occupancy(pool)} ${facts(pool)} ${counters(pool)} ${startFailure(pool)}
      <p class="note">
        ${processLink(this.#app, pool.sup)} ${processLink(this.#app, pool.man)}
        ${processLink(this.#app, pool.worker_sup)}
      </p>
    </article>`;
  }
}

/** Its state in words; what is out of the ordinary stands out. */
export function state({ state: word, phase, suspended, healthy, breaker }) {
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
