// The supervision tree: what is in it, what is expanded, and where the keyboard is.  How it looks is drawn by
// drawing.js, the article's picture, or by treelist.js, which suits a big tree and a small screen.
//
// Everything is kept by a node's key, which stays while its process is restarted: so the tree does, too.

import { html, nothing } from "./template.js";
import { nodePath } from "./api.js";
import { number } from "./format.js";
import { drawing } from "./drawing.js";
import { searchBox } from "./search.js";
import { MEANING, STATUSES, badge, mark } from "./status.js";
import { treeList } from "./treelist.js";

const BIG = 150; // nodes: a bigger tree is a list at first, with its lower levels collapsed
const OPEN_LEVELS = 3; // of a big tree
const MOST = 1000; // children shown of each supervisor, once "more" was asked for
const FRESH = 3000; // ms that a restart is highlighted
const TYPING = 700; // ms: letters that follow sooner belong to one word

const small = matchMedia("(max-width: 40rem)");

export class Tree {
  hovered = null; // key of the node whose details are shown
  #app;
  #node = null; // whose tree this is
  #answer = null;
  #expanded = new Map(); // key → boolean, where the viewer has chosen
  #restarts = new Map(); // key → restarts, at the last answer
  #fresh = new Set(); // keys of those just restarted
  #focused = null; // key of the node that Tab leads to
  #asList = false; // the default for this tree
  #typed = { text: "", at: 0 };

  constructor(app) {
    this.#app = app;
  }

  path({ node, params }) {
    return nodePath(node, "tree", { filter: params.filter, limit: params.limit });
  }

  take(answer, { node }) {
    if (this.#node !== node) {
      this.#node = node;
      this.#asList = answer.nodes > BIG || small.matches;
      for (const kept of [this.#expanded, this.#restarts, this.#fresh]) kept.clear();
    }
    this.#answer = answer;
    this.#noteRestarts(answer.roots);
  }

  #noteRestarts(nodes) {
    for (const { key, restarts, children } of nodes) {
      if (restarts > (this.#restarts.get(key) ?? restarts)) this.#highlight(key);
      this.#restarts.set(key, restarts);
      this.#noteRestarts(children);
    }
  }

  #highlight(key) {
    this.#fresh.add(key);
    setTimeout(() => {
      this.#fresh.delete(key);
      this.#app.redraw();
    }, FRESH);
  }

  draw(route) {
    const answer = this.#node === route.node ? this.#answer : null;
    const asList = route.params.as ? route.params.as === "list" : this.#asList;
    const choice = (value, label) =>
      html`<a
        href=${this.#app.link({ as: value })}
        aria-current=${(value === "list") === asList ? "true" : nothing}
        >${label}</a
      >`;
    return html` <h1 class="hidden">Supervision tree</h1>
      <div class="bar">
        <div class="segments" role="group" aria-label="Shown as">
          ${choice("drawing", "Drawing")}${choice("list", "List")}
        </div>
        ${searchBox(this.#app, "Search the tree", route.params.filter, (filter) => ({ filter }))}
        <span class="note grow">${answer ? `${number(answer.nodes)} nodes` : "asking …"}</span>
        <button type="button" @click=${() => this.#all(true)}>Expand all</button>
        <button type="button" @click=${() => this.#all(false)}>Collapse all</button>
      </div>
      ${answer ? this.#drawTree(answer, route, asList) : nothing}`;
  }

  #drawTree(answer, route, asList) {
    const items = this.#visible(answer);
    if (!items.length)
      return html`<p class="empty">
        ${answer.filter ? `Nothing in the tree contains “${answer.filter}”.` : "There is no supervisor here."}
      </p>`;
    if (!items.some(({ key }) => key === this.#focused)) this.#focused = items[0].key;
    const tree = {
      items,
      filter: answer.filter,
      focused: this.#focused,
      selected: route.params.pid ? Number(route.params.pid) : null,
      process: this.#app.processWindow.shown(route),
      hovered: items.find(({ key }) => key === this.hovered),
      fresh: this.#fresh,
      opens: (item) => this.#open(item),
      toggles: (item) => this.#toggle(item),
      hovers: (item) => this.#hover(item),
      focuses: (item) => this.#focusOn(item),
      keys: (event) => this.#key(event, items),
    };
    return html`${asList ? treeList(tree) : drawing(tree)} ${legend()}`;
  }

  /** The nodes that are to be seen, in the order of reading: {key, node, parent, level, index, size, open}. */
  #visible({ roots, nodes, filter }) {
    const items = [];
    const big = nodes > BIG;
    const walk = (children, more, parent) => {
      const level = parent ? parent.level + 1 : 1;
      const size = children.length + (more ? 1 : 0);
      children.forEach((node, i) => {
        const item = {
          key: node.key,
          node,
          parent,
          level,
          index: i + 1,
          size,
          open: null,
          below: node.children.length + node.more,
        };
        if (item.below) item.open = this.#isOpen(node.key, level, big, filter);
        items.push(item);
        if (item.open) walk(node.children, node.more, item);
      });
      if (more)
        items.push({ key: `${parent.key}/…`, more, parent, level, index: size, size, open: null, below: 0 });
    };
    walk(roots, 0, null);
    return items;
  }

  #isOpen(key, level, big, filter) {
    return this.#expanded.get(key) ?? (filter !== "" || !big || level <= OPEN_LEVELS);
  }

  #toggle(item, open = !item.open) {
    if (item.open === null) return;
    this.#expanded.set(item.key, open);
    this.#app.draw(); // the next key may lead to what this one has shown
  }

  #all(open) {
    const walk = (nodes) => {
      for (const { key, children } of nodes) {
        this.#expanded.set(key, open);
        walk(children);
      }
    };
    walk(this.#answer?.roots ?? []);
    this.#app.redraw();
  }

  #open(item) {
    this.#focused = item.key;
    if (item.more) this.#app.go({ limit: MOST }, { replace: true });
    else if (item.node.id !== null) this.#app.go({ pid: item.node.id });
    else this.#app.actions.restartStopped(item.parent?.node, item.node);
  }

  #hover(item) {
    this.hovered = item?.key ?? null;
    this.#app.redraw();
  }

  #focusOn(item) {
    this.#focused = item.key;
    this.#hover(item);
  }

  /** The keys of a tree, as everywhere: arrows, Home, End, Enter, and the first letters of a name. */
  #key(event, items) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const at = items.findIndex(({ key }) => key === this.#focused);
    const item = items[at];
    const target = {
      ArrowDown: () => items[at + 1],
      ArrowUp: () => items[at - 1],
      Home: () => items[0],
      End: () => items.at(-1),
      ArrowRight: () => (item.open === false ? this.#toggle(item, true) : item.open ? items[at + 1] : null),
      ArrowLeft: () => (item.open ? this.#toggle(item, false) : item.parent),
      Enter: () => this.#open(item),
      " ": () => this.#toggle(item),
    }[event.key];
    if (!target && event.key.length !== 1) return;
    event.preventDefault();
    if (target) this.#typed.text = ""; // a word ends where the hand moves on
    const next = target ? target() : this.#find(event.key, items, at);
    if (next) event.currentTarget.querySelector(`[data-key="${CSS.escape(next.key)}"]`)?.focus();
  }

  #find(letter, items, at) {
    const now = Date.now();
    const text = (now - this.#typed.at < TYPING ? this.#typed.text : "") + letter.toLowerCase();
    this.#typed = { text, at: now };
    const start = text.length === 1 ? at + 1 : at; // a new word looks further, a longer one may stay
    const order = [...items.slice(start), ...items.slice(0, start)];
    return order.find((item) => item.node?.label.toLowerCase().startsWith(text));
  }
}

function legend() {
  return html`<details class="legend">
    <summary>Legend</summary>
    <ul>
      ${STATUSES.map((word) => html`<li>${mark(word)} ${MEANING[word]}</li>`)}
      <li><span class="key-box supervisor"></span> supervisor, with its strategy below its name</li>
      <li><span class="key-box worker"></span> worker</li>
      <li>${badge(2)} restarted twice</li>
      <li>
        <svg class="key-line" viewBox="0 0 30 8" aria-hidden="true">
          <path d="M1 4H29" class="tie links" />
        </svg>
        links of the one that is open
      </li>
      <li>
        <svg class="key-line" viewBox="0 0 30 8" aria-hidden="true">
          <path d="M1 4H29" class="tie monitors" />
        </svg>
        monitors of the one that is open
      </li>
    </ul>
  </details>`;
}
