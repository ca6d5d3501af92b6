// The tree as the article draws it: the root on the left, PoolSup, below it PoolMan and WorkerSup, then workers.
//
// d3-hierarchy says where each node stands, lit draws it.  Links and monitors of the open process are thin curves.

import { tree as tidy, hierarchy } from "./vendor/d3-hierarchy/d3-hierarchy.min.mjs";
import { html, nothing, svg } from "./template.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";
import { number, pid, shorten } from "./format.js";
import { shape, status } from "./status.js";
import { otherNames, said } from "./treelist.js";

const GAP = { row: 10, family: 10, column: 44 };
const PAD = { left: 26, right: 14 }; // in a box, beside its text
const WIDTH = { least: 110, most: 230 };
const MARGIN = 16; // around the picture: badges and focus rings stand out
const LABEL = "600 13px system-ui, sans-serif";
const SMALL = "11px system-ui, sans-serif";

const ruler = document.createElement("canvas").getContext("2d");

function textWidth(text, font) {
  ruler.font = font;
  return ruler.measureText(text).width;
}

export function drawing(tree) {
  const { boxes, width, height } = layOut(tree.items);
  return html`<div class="scroll picture" data-place tabindex="-1">
      <div class="canvas">
        <svg
          role="tree"
          aria-label="Supervision tree"
          width=${width}
          height=${height}
          viewBox="0 0 ${width} ${height}"
          @keydown=${tree.keys}
        >
          <g role="none">
            ${repeat(
              boxes.filter((box) => box.parent),
              (box) => box.item.key,
              edge,
            )}
          </g>
          <g role="none">${ties(tree, boxes)}</g>
          ${repeat(
            boxes,
            (box) => box.item.key,
            (box) => node(tree, box),
          )}
        </svg>
      </div>
    </div>
    ${details(tree.hovered)}`;
}

/** Boxes with x, y (of their left end, middle), w and h; a column is as wide as its widest label. */
function layOut(items) {
  const boxes = new Map(
    items.map((item) => [item.key, { item, ...measured(item), parent: null, children: [] }]),
  );
  const top = { h: 0, children: [] };
  const columns = []; // level → width
  for (const box of boxes.values()) {
    const { level, parent } = box.item;
    box.parent = parent ? boxes.get(parent.key) : null;
    (box.parent ?? top).children.push(box);
    columns[level] = Math.max(columns[level] ?? 0, box.w);
  }
  const layout = tidy()
    .nodeSize([1, 1])
    .separation((a, b) => (a.data.h + b.data.h) / 2 + GAP.row + (a.parent === b.parent ? 0 : GAP.family));
  const placed = layout(hierarchy(top)).descendants().slice(1);
  const upper = Math.min(...placed.map(({ x, data }) => x - data.h / 2));
  const left = columns.reduce((sums, w) => [...sums, sums.at(-1) + w + GAP.column], [MARGIN]); // level - 1 → x
  for (const { x, data } of placed) {
    data.x = left[data.item.level - 1];
    data.y = x - upper + MARGIN;
    data.w = columns[data.item.level];
  }
  const all = [...boxes.values()];
  return {
    boxes: all,
    width: Math.max(...all.map(({ x, w }) => x + w)) + MARGIN + 12,
    height: Math.max(...all.map(({ y, h }) => y + h / 2)) + MARGIN,
  };
}

function measured({ node, more }) {
  if (!node) return { w: 90, h: 24, lines: [] };
  const lines = [
    [...otherNames(node), node.id === null ? null : pid(node.id)].filter(Boolean).join("  "),
    node.strategy,
  ].filter(Boolean);
  const text = Math.max(
    textWidth(shorten(node.label, 30), LABEL),
    ...lines.map((line) => textWidth(shorten(line, 36), SMALL)),
  );
  const w = Math.min(WIDTH.most, Math.max(WIDTH.least, Math.ceil(text) + PAD.left + PAD.right));
  return { w, h: 24 + 14 * lines.length, lines };
}

const edge = ({ x, y, parent }) => {
  const from = parent.x + parent.w;
  const middle = (from + x) / 2;
  return svg`<path class="edge" d="M${from} ${parent.y}C${middle} ${parent.y} ${middle} ${y} ${x} ${y}"/>`;
};

function node(tree, box) {
  const { item, x, y, h } = box;
  return svg`<g role="treeitem" class=${classes(tree, item)} data-key=${item.key} transform="translate(${x} ${y - h / 2})"
    tabindex=${item.key === tree.focused ? 0 : -1} aria-label=${said(item)}
    aria-level=${item.level} aria-posinset=${item.index} aria-setsize=${item.size}
    aria-expanded=${item.open ?? nothing} aria-selected=${isOpen(tree, item)}
    @focus=${() => tree.focuses(item)} @blur=${() => tree.hovers(null)} @click=${() => tree.opens(item)}
    @pointerenter=${() => tree.hovers(item)} @pointerleave=${() => tree.hovers(null)}>
    ${item.node ? content(tree, box) : more(box)}</g>`;
}

const more = ({ item, w, h }) => svg`<rect class="box more" width=${w} height=${h} rx="12"/>
  <text x="12" y="16">${number(item.more)} more …</text>`;

function content(tree, { item, w, h, lines }) {
  const { node } = item;
  const names = [node.label, ...otherNames(node)].join(" ").toLowerCase();
  const hit = tree.filter && names.includes(tree.filter.toLowerCase());
  return svg`<rect class="box ${node.type} ${hit ? "hit" : ""}" width=${w} height=${h} rx=${node.type === "supervisor" ? 3 : 12}/>
    ${shape(node.status, 10, 7)}
    <text class="label" x=${PAD.left} y="17">${shorten(node.label, 30)}</text>
    ${lines.map((line, i) => {
      const kind = line === node.strategy ? "small strategy" : "small";
      return svg`<text class=${kind} x=${PAD.left} y=${31 + 14 * i}>${shorten(line, 36)}</text>`;
    })}
    ${node.restarts ? restarts(node, w) : nothing}
    ${item.open === null ? nothing : toggle(tree, item, w, h)}`;
}

/** How often it was restarted, on the upper edge of the box. */
function restarts({ restarts: times }, w) {
  const width = 16 + 7 * String(times).length;
  return svg`<g class="restarts" transform="translate(${w - 12} 0)">
    <rect x=${-width / 2} y="-9" width=${width} height="17" rx="8.500"/><text y="3.500">×${times}</text></g>`;
}

const MINUS = svg`<circle r="7"/><path d="M-3 0H3"/>`;
const plus = (below) => svg`<rect x="-7" y="-8" width=${18 + 7 * String(below).length} height="16" rx="8"/>
  <text x="-1" y="4">+${below}</text>`;

function toggle(tree, item, w, h) {
  const click = (event) => {
    event.stopPropagation();
    tree.toggles(item);
  };
  return svg`<g class="toggle" transform="translate(${w} ${h / 2})" @click=${click}>
    ${item.open ? MINUS : plus(item.below)}</g>`;
}

const isOpen = (tree, { node }) => Boolean(node && node.id !== null && node.id === tree.selected);

function classes(tree, item) {
  return ["node", item.node?.status, isOpen(tree, item) && "open", tree.fresh.has(item.key) && "fresh"]
    .filter(Boolean)
    .join(" ");
}

/** Curves from the open process to those it is linked to, and to and from those that monitor. */
function ties({ process }, boxes) {
  if (!process) return nothing;
  const byId = new Map(
    boxes.filter(({ item }) => item.node && item.node.id !== null).map((box) => [box.item.node.id, box]),
  );
  const self = byId.get(process.id);
  if (!self) return nothing;
  const those = (refs) => refs.map(({ id }) => byId.get(id)).filter((box) => box && box !== self);
  return [
    ...those(process.links).map((other) => tie(self, other, "links")),
    ...those(process.monitors).map((other) => tie(self, other, "monitors")),
    ...those(process.monitored_by).map((other) => tie(other, self, "monitors")),
  ];
}

/** Within a column the curve swings out to the right; between columns it runs from edge to edge. */
function tie(from, to, kind) {
  const same = from.x === to.x;
  const forward = to.x > from.x;
  const x1 = same || forward ? from.x + from.w : from.x;
  const x2 = same || !forward ? to.x + to.w : to.x;
  const bend = same ? 34 : forward ? 22 : -22;
  const [y1, y2] = [from.y + (kind === "links" ? -5 : 5), to.y + (kind === "links" ? -5 : 5)];
  const curve = `M${x1} ${y1}C${x1 + bend} ${y1} ${same ? x2 + bend : x2 - bend} ${y2} ${x2} ${y2}`;
  return svg`<path class="tie ${kind}" d=${curve}/><circle class="tie-end ${kind}" cx=${x2} cy=${y2} r="2.500"/>`;
}

/** What is known of the node under the pointer, or of that with the focus. */
function details(hovered) {
  if (!hovered?.node)
    return html`<p class="details dim">
      Point at a node for its details. Arrow keys move, Enter opens its window.
    </p>`;
  const { node } = hovered;
  const row = (name, value) => html`<span><i>${name}</i> ${value}</span>`;
  return html`<p class="details">
    <strong>${node.label}</strong> ${status(node.status)}
    ${node.id === null ? nothing : html`<span>${pid(node.id)}</span>`}
    ${node.initial_call ? row("initial call", node.initial_call) : nothing}
    ${node.child_id === null ? nothing : row("child", node.child_id)}
    ${node.strategy ? row("strategy", node.strategy) : nothing} ${row("restarts", node.restarts)}
    ${row("mailbox", number(node.mailbox))} ${node.pool ? row("pool", node.pool) : nothing}
  </p>`;
}
