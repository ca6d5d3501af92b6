// Where a pool's places are: a bar as wide as its cap, and the same in numbers.

import { html, nothing, svg } from "./template.js";
import { number } from "./format.js";

// From left to right.  "tidying": workers that finish, are reset or are closed; they have no client, yet take a place.
const PARTS = [
  ["busy", (pool) => pool.busy],
  ["tidying", (pool) => pool.finishing + pool.resetting + pool.closing],
  ["starting", (pool) => pool.starting],
  ["idle", (pool) => pool.idle],
];

const ALWAYS = ["busy", "idle"]; // said even if there are none

const part = (kind, n, word) => html`<li><i class=${kind}></i><strong>${number(n)}</strong> ${word}</li>`;

export function occupancy(pool) {
  const cap = pool.size + pool.max_overflow;
  const parts = PARTS.map(([name, count]) => [name, count(pool)]);
  const used = parts.reduce((sum, [, n]) => sum + n, 0);
  const scale = 100 / Math.max(cap, used, 1);
  let x = 0;
  const rects = parts.map(([name, n]) => {
    const rect = svg`<rect class=${name} x=${x} width=${n * scale} height="10"/>`;
    x += n * scale;
    return rect;
  });
  const free = Math.max(0, cap - used);
  return html`<div class="occupancy">
    <svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
      <rect class="free" width="100" height="10" />
      ${rects} ${pool.max_overflow ? svg`<path class="size" d="M${pool.size * scale} 0V10"/>` : nothing}
    </svg>
    <ul>
      ${parts.filter(([name, n]) => n || ALWAYS.includes(name)).map(([name, n]) => part(name, n, name))}
      <li><i class="free"></i><strong>${number(free)}</strong> not started</li>
      ${pool.overflow ? html`<li class="warn-text"><strong>${number(pool.overflow)}</strong> overflow</li>` : nothing}
      <li class="of dim">
        of ${number(pool.size)}${pool.max_overflow ? html` + ${number(pool.max_overflow)}` : nothing}
      </li>
    </ul>
  </div>`;
}
