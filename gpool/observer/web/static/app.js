// The page: a frame around the visible view and the process's window, drawn again whenever something changed.
//
// Each view is an object with `path(route)`, what it wants asked (null: nothing), `take(answer, route)` and
// `draw(route)`.  They get `app`, below, and nothing else: where we are, the nodes, and the way to go elsewhere.

import { html, nothing, render } from "./template.js";
import { Actions } from "./actions.js";
import { Events } from "./events.js";
import { Nodes } from "./nodes.js";
import { paceControl, troubles } from "./frame.js";
import { Poll } from "./poll.js";
import { Pools } from "./pools.js";
import { ProcessWindow } from "./process.js";
import { Processes } from "./processes.js";
import { Tree } from "./tree.js";
import { counted, visible } from "./format.js";
import { changed, format, parse } from "./route.js";

const narrow = matchMedia("(max-width: 68rem)"); // no room for the window beside the view
const app = {
  route: parse(location.hash),
  get narrow() {
    return narrow.matches;
  },
  /** What the current node last said of itself, or undefined. */
  get node() {
    return nodes.known(app.route.node);
  },
  link: (params) => format(changed(app.route, params)),
  pathTo: (view, params = {}) => format({ node: app.route.node, view, params }),
  go(params, { replace = false } = {}) {
    const hash = app.link(params);
    if (hash === format(app.route)) return;
    if (!replace) location.hash = hash;
    else {
      history.replaceState(null, "", hash);
      arrive();
    }
  },
  /** Whoever opened the page without saying what to look at sees the only node there is. */
  start(node) {
    if (location.hash !== "") return;
    history.replaceState(null, "", format({ node, view: app.route.view }));
    arrive();
  },
  redraw, // soon
  draw, // now, for who goes on with what is drawn
  wake,
  announce,
};

const nodes = new Nodes(app);
const views = {
  tree: new Tree(app),
  processes: new Processes(app),
  pools: new Pools(app),
  events: new Events(app),
};
const processWindow = new ProcessWindow(app);
Object.assign(app, { nodes, processWindow, actions: new Actions(app) });

const view = () => (app.route.node ? views[app.route.view] : null);
const windowOpen = () => Boolean(app.route.node && app.route.params.pid);
const viewShown = () => view() && !(app.narrow && windowOpen());

const polls = {
  nodes: new Poll(nodes, redraw, { least: 5 }),
  view: new Poll(
    ofNode(() => (viewShown() ? view() : null)),
    heard,
  ),
  window: new Poll(
    ofNode(() => (windowOpen() ? processWindow : null)),
    heard,
  ),
};

/** What the current node is to be asked for whoever `asks()`; null: nobody does. */
function ofNode(asks) {
  return {
    path: () => asks()?.path(app.route) ?? null,
    take(answer) {
      nodes.heard(app.route.node, answer);
      asks().take(answer, app.route);
    },
    refused: (error) => asks().refused?.(error, app.route) ?? false,
  };
}

function heard() {
  if (polls.view.failing || polls.window.failing) polls.nodes.wake(); // is the node gone?
  redraw();
}

function wake() {
  for (const poll of Object.values(polls)) poll.wake();
}

let due = 0; // the animation frame that will draw

function redraw() {
  due ||= requestAnimationFrame(draw);
}

function draw() {
  cancelAnimationFrame(due);
  due = 0;
  keepingFocus(() => render(frame(), document.body));
  app.actions.drawn();
  document.title = visible(title());
  if (Object.values(polls).some((poll) => poll.failing)) tick();
}

let ticking = 0; // "no answer since 12 s" counts on by itself

function tick() {
  ticking ||= setTimeout(() => {
    ticking = 0;
    redraw();
  }, 1000);
}

/** A row that moved or went must not throw the keyboard's user back to the top of the page. */
function keepingFocus(change) {
  const focused = document.activeElement;
  const place = focused?.closest("[data-place]");
  change();
  if (!focused || focused === document.body || document.activeElement !== document.body) return;
  const heir = focused.isConnected ? focused : place?.isConnected ? place : document.querySelector("main");
  heir?.focus({ preventScroll: true });
}

function announce(text) {
  document.getElementById("live").textContent = visible(text);
}

function title() {
  const where = app.route.node ? `node ${app.route.node}` : "all nodes";
  return [windowOpen() ? processWindow.title(app.route) : null, where, "gpool Observer"]
    .filter(Boolean)
    .join(" – ");
}

function frame() {
  const { route } = app;
  const open = windowOpen();
  return html` <a class="skip" href="#main" @click=${skip}>Skip to the view</a>
    <header>
      <a class="brand" href="#/">gpool <span>Observer</span></a>
      ${nodes.picker(route)} ${paceControl(app, polls)}
    </header>
    <nav aria-label="Views">${route.node ? tabs(route) : nothing}</nav>
    <p id="live" class="hidden" role="status" aria-live="polite"></p>
    ${nodes.banners(route)} ${troubles(app, polls)} ${app.actions.outcome()}
    <div class=${open ? "with-window" : ""}>
      <main id="main" tabindex="-1" data-place ?hidden=${open && app.narrow}>
        ${open && app.narrow ? nothing : (view()?.draw(route) ?? nodes.draw())}
      </main>
      ${open ? processWindow.draw(route) : nothing}
    </div>
    ${app.actions.dialog()}`;
}

function tabs(route) {
  const zombies = app.node?.counts?.zombies;
  const unseen = views.events.unseen(route.node);
  const alarm = html` <span class="count bad">${counted(zombies, "zombie")}</span>`;
  const fresh = html` <span class="count"
    >${unseen > 99 ? "99+" : unseen}<span class="hidden"> new</span></span
  >`;
  const tab = (name, label, extra = nothing) =>
    html`<a
      href=${app.pathTo(name, app.narrow ? {} : { pid: route.params.pid })}
      aria-current=${route.view === name && viewShown() ? "page" : nothing}
      >${label}${extra}</a
    >`;
  return html` ${tab("tree", "Tree")} ${tab("processes", "Processes", zombies ? alarm : nothing)}
  ${tab("pools", "Pools")} ${tab("events", "Events", unseen ? fresh : nothing)}`;
}

function skip(event) {
  event.preventDefault(); // "#main" would be read as a route
  document.getElementById("main").focus();
}

let opener = null; // what had the focus when the window was opened

/** The address has changed: ask for what is wanted there, and draw what we have already. */
function arrive() {
  const before = app.route;
  app.route = parse(location.hash);
  const [was, is] = [before.params.pid, app.route.params.pid];
  if (is && !was) opener = document.activeElement;
  wake();
  redraw();
  if (is !== was) requestAnimationFrame(() => (is ? opened() : opener?.isConnected && opener.focus()));
}

function opened() {
  processWindow.focus();
  const node = document.querySelector('[role="treeitem"].open');
  node?.scrollIntoView({ block: "nearest", inline: "nearest" }); // the view is narrower now
}

addEventListener("hashchange", arrive);
document.addEventListener(
  "visibilitychange",
  () => document.hidden || Object.values(polls).forEach((poll) => poll.shown()),
);
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && windowOpen() && !event.target.closest("dialog, input")) app.go({ pid: null });
});
narrow.addEventListener("change", arrive);
wake();
redraw();
