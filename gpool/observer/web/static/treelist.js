// The tree as an indented list: for many nodes, for small screens, for who would rather read than look.

import { html, nothing } from "./template.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";
import { number, pid } from "./format.js";
import { marked } from "./search.js";
import { badge, mark } from "./status.js";

export function treeList(tree) {
  return html`<div
    class="treelist"
    role="tree"
    aria-label="Supervision tree"
    data-place
    tabindex="-1"
    @keydown=${tree.keys}
  >
    ${repeat(
      tree.items,
      (item) => item.key,
      (item) => row(tree, item),
    )}
  </div>`;
}

function row(tree, item) {
  const { node } = item;
  return html`<div
    role="treeitem"
    class=${classes(tree, item)}
    data-key=${item.key}
    .style=${`--level: ${item.level - 1}`}
    tabindex=${item.key === tree.focused ? 0 : -1}
    aria-label=${said(item)}
    aria-level=${item.level}
    aria-posinset=${item.index}
    aria-setsize=${item.size}
    aria-expanded=${item.open ?? nothing}
    aria-selected=${node && node.id !== null && node.id === tree.selected}
    @focus=${() => tree.focuses(item)}
    @click=${() => tree.opens(item)}
  >
    <span class="twisty" @click=${(event) => toggle(event, tree, item)}
      >${item.open === null ? "" : item.open ? "▾" : "▸"}</span
    >
    ${node ? content(tree, item) : html`<span class="more">${number(item.more)} more …</span>`}
  </div>`;
}

function content({ filter }, { node, open, below }) {
  return html`${mark(node.status)}<span class="label ${node.type}">${marked(node.label, filter)}</span>
    ${otherNames(node).map((name) => html`<code class="child">${marked(name, filter)}</code>`)}
    ${badge(node.restarts)} ${open === false ? html`<span class="count">${number(below)}</span>` : nothing}
    ${node.strategy ? html`<span class="strategy">${node.strategy}</span>` : nothing}
    <span class="end"
      >${node.mailbox ? mailbox(node.mailbox) : nothing} <span class="word">${node.status}</span
      ><span class="pid">${node.id === null ? "" : pid(node.id)}</span></span
    >`;
}

const mailbox = (length) =>
  html`<span class="mailbox">
    <span aria-hidden="true">✉</span> ${number(length)}<span class="words"> in mailbox</span>
  </span>`;

function classes(tree, { key, node }) {
  return [node && node.id !== null && node.id === tree.selected && "open", tree.fresh.has(key) && "fresh"]
    .filter(Boolean)
    .join(" ");
}

function toggle(event, tree, item) {
  if (item.open === null) return;
  event.stopPropagation();
  tree.toggles(item);
}

/** What it is called beside its label: by what it runs, and by its supervisor. */
export function otherNames({ label, initial_call, child_id }) {
  return [...new Set([initial_call, child_id])].filter((name) => name && name !== label);
}

/** What a screen reader says of a node. */
export function said({ node, more }) {
  if (!node) return `${more} more children: show them`;
  return [
    node.label,
    ...otherNames(node),
    node.type,
    node.status,
    node.restarts && `restarted ${node.restarts} ${node.restarts === 1 ? "time" : "times"}`,
    node.id !== null && pid(node.id),
  ]
    .filter(Boolean)
    .join(", ");
}
