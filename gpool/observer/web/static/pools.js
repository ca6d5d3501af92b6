// The pools: one card each, or one pool with all that is known of it.

import { html } from "./template.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";
import { nodePath } from "./api.js";
import { processLink } from "./link.js";
import { PoolDetail } from "./pool.js";
import { occupancy } from "./occupancy.js";
import { counters, facts, startFailure, state } from "./poolfacts.js";

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
