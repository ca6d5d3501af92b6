// A search box that waits until the typing pauses, and marks what was found.

import { html } from "./template.js";

const PAUSE = 250; // ms
let waiting = 0; // one box is seen at a time

/** `set(text)` gives the route's params for that text. */
export function searchBox(app, label, value, set) {
  const search = (text) => {
    clearTimeout(waiting);
    app.go(set(text), { replace: true });
  };
  const typed = ({ target }) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => target.isConnected && search(target.value), PAUSE);
  };
  const key = (event) => event.key === "Enter" && search(event.target.value);
  return html`<input
    type="search"
    placeholder=${label}
    aria-label=${label}
    .value=${value ?? ""}
    spellcheck="false"
    autocomplete="off"
    @input=${typed}
    @keydown=${key}
  />`;
}

/** The text with what was searched for in <mark>. */
export function marked(text, filter) {
  const at = filter ? text.toLowerCase().indexOf(filter.toLowerCase()) : -1;
  if (at < 0) return text;
  return html`${text.slice(0, at)}<mark>${text.slice(at, at + filter.length)}</mark>${text.slice(at + filter.length)}`;
}
