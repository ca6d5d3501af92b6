// One pool: how it went in the last minutes, who holds its workers and since which line, who waits, what went wrong.

import { html, nothing } from "./template.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";
import { nodePath } from "./api.js";
import { Chart } from "./charts.js";
import { eventList } from "./events.js";
import { brief, number, seconds } from "./format.js";
import { processLink } from "./link.js";
import { occupancy } from "./occupancy.js";
import { counters, facts, startFailure, state } from "./poolfacts.js";

const POINTS = 720; // as many as a node keeps
const percentiles = (what) =>
  ["p50", "p95", "p99"].map((p, i) => ({ key: `${what}_${p}`, label: p, colour: i }));

export class PoolDetail {
  #app;
  #of = null; // "node/pool" that the rest is of
  #pool = null;
  #history = null; // lists of one length
  #unknown = null; // "node/pool" that its node does not have
  #charts = [
    new Chart(
      "Workers and waiting",
      [
        { key: "busy", label: "busy", colour: 0 },
        { key: "idle", label: "idle", colour: 1 },
        { key: "waiting", label: "waiting", colour: 2 },
      ],
      number,
    ),
    new Chart("Wait for a worker", percentiles("wait"), seconds),
    new Chart("Hold of a worker", percentiles("hold"), seconds),
    new Chart("Checkouts per second", [{ key: "checkouts", label: "checkouts", colour: 0 }], (n) =>
      n === null ? "–" : n.toFixed(n < 10 ? 1 : 0),
    ),
  ];

  constructor(app) {
    this.#app = app;
  }

  path(route) {
    if (this.#unknown === keyOf(route)) return null;
    const after = this.#of === keyOf(route) ? this.#history?.at.at(-1) : null;
    return nodePath(route.node, `pools/${encodeURIComponent(route.params.pool)}`, { after });
  }

  take({ pool }, route) {
    if (this.#of !== keyOf(route)) [this.#of, this.#history] = [keyOf(route), null];
    this.#pool = pool;
    this.#history = joined(this.#history, pool.history);
    for (const chart of this.#charts) chart.update(this.#history);
  }

  refused(error, route) {
    const unknown = error.fromNode && error.status === 404;
    if (unknown) this.#unknown = keyOf(route);
    return unknown;
  }

  draw(route) {
    const pool = this.#of === keyOf(route) ? this.#pool : null;
    const { name } = pool ?? { name: route.params.pool };
    return html` <div class="bar"><a href=${this.#app.link({ pool: null })}>‹ All pools</a></div>
      <div class="title">
        <h1>Pool ${name}</h1>
        ${pool ? state(pool) : nothing}
      </div>
      ${pool ? this.#known(pool) : html`<p class="empty">${this.#whyNot(route)}</p>`}`;
  }

  #whyNot(route) {
    return this.#unknown === keyOf(route)
      ? `Node ${route.node} has no pool ${route.params.pool}.`
      : "asking …";
  }

  #known(pool) {
    const { errors } = pool;
    return html` <div class="card">
        ${occupancy(pool)} ${facts(pool)} ${counters(pool)} ${startFailure(pool)}
        <p class="note">
          ${processLink(this.#app, pool.sup)} ${processLink(this.#app, pool.man)}
          ${processLink(this.#app, pool.worker_sup)}
        </p>
      </div>
      ${this.#app.actions.forPool(pool)}
      <div class="charts">${this.#charts.map((chart) => chart.element)}</div>
      ${pool.measured ? nothing : html`<p class="note">Waits and holds are not being measured.</p>`}
      <div class="columns">
        <section>
          <h2>Holders <span class="dim">${number(pool.holders.length + pool.holders_more)}</span></h2>
          ${this.#holders(pool)}
        </section>
        <section>
          <h2>Waiting <span class="dim">${number(pool.waiters.length + pool.waiters_more)}</span></h2>
          ${this.#waiters(pool)}
        </section>
      </div>
      <section>
        <h2>Last errors</h2>
        ${errors.length ? eventList(this.#app, errors) : html`<p class="note">None.</p>`}
      </section>`;
  }

  #holders({ holders, holders_more: more }) {
    if (!holders.length) return html`<p class="note">Nobody holds a worker.</p>`;
    return html`<div class="scroll" tabindex="0" role="region" aria-label="Holders">
      <table>
        <thead>
          <tr>
            <th scope="col" class="n">For</th>
            <th scope="col">Client</th>
            <th scope="col">Checked out at</th>
            <th scope="col">Worker</th>
          </tr>
        </thead>
        <tbody>
          ${holders.map(
            (holder) =>
              html`<tr>
                <td class="n">${seconds(holder.age)}</td>
                <td>${processLink(this.#app, holder.client)}</td>
                <td class="code" title=${holder.line}>${brief(holder.line)}</td>
                <td>
                  ${
                    holder.worker_process
                      ? processLink(this.#app, holder.worker_process)
                      : html`<code>${holder.worker}</code>`
                  }
                </td>
              </tr>`,
          )}
          ${rest(more)}
        </tbody>
      </table>
    </div>`;
  }

  #waiters({ waiters, waiters_more: more }) {
    if (!waiters.length) return html`<p class="note">Nobody waits.</p>`;
    return html`<div class="scroll" tabindex="0" role="region" aria-label="Waiting">
      <table>
        <thead>
          <tr>
            <th scope="col" class="n">For</th>
            <th scope="col" class="n">Time left</th>
            <th scope="col">Client</th>
            <th scope="col">At</th>
          </tr>
        </thead>
        <tbody>
          ${repeat(
            waiters,
            (waiter, i) => waiter.client?.id ?? -i,
            (waiter) =>
              html`<tr>
                <td class="n">${seconds(waiter.waited)}</td>
                <td class="n">${waiter.left === null ? "for ever" : seconds(waiter.left)}</td>
                <td>${processLink(this.#app, waiter.client)}</td>
                <td class="code" title=${waiter.line}>${brief(waiter.line)}</td>
              </tr>`,
          )}
          ${rest(more)}
        </tbody>
      </table>
    </div>`;
  }
}

const rest = (more) =>
  more
    ? html`<tr>
        <td colspan="4" class="dim">and ${number(more)} more</td>
      </tr>`
    : nothing;

const keyOf = ({ node, params }) => `${node}/${params.pool}`;

/** The old points and those that are later, at most as many as the node itself keeps. */
function joined(old, added) {
  if (!old) return added;
  const last = old.at.at(-1) ?? 0;
  const fresh = added.at.findIndex((at) => at > last);
  if (fresh < 0) return old;
  return Object.fromEntries(
    Object.entries(added).map(([key, list]) => [key, [...old[key], ...list.slice(fresh)].slice(-POINTS)]),
  );
}
