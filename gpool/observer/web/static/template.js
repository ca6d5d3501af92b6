// lit's templates, for texts that others wrote: whatever a process is called, it is drawn as one text that stays
// in its place.  Every view takes `html` and `svg` from here.

import * as lit from "./vendor/lit-html/lit-html.js";
import { visible } from "./format.js";

export { nothing, render } from "./vendor/lit-html/lit-html.js";

// Written from right to left: such a text would turn round what stands beside it.
const FROM_RIGHT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufeff\u{10800}-\u{10fff}\u{1e800}-\u{1efff}]/u;
const RAW = /(?:\.\w+|data-key|value)=["']?$/; // attributes that are read again, not looked at

const places = new WeakMap(); // a template's strings → for each value: "text", "attribute" or "raw"

export const html = (strings, ...values) => lit.html(strings, ...values.map((value, i) => drawn(strings, value, i)));

/** In a picture each text stands by itself. */
export const svg = (strings, ...values) => lit.svg(strings, ...values.map((value, i) => seen(strings, value, i)));

function drawn(strings, value, i) {
  if (Array.isArray(value)) return value.map((one) => drawn(strings, one, i));
  const text = seen(strings, value, i);
  const apart = typeof text === "string" && placesOf(strings)[i] === "text" && FROM_RIGHT.test(text);
  return apart ? lit.html`<bdi>${text}</bdi>` : text;
}

const seen = (strings, value, i) =>
  typeof value === "string" && placesOf(strings)[i] !== "raw" ? visible(value) : value;

function placesOf(strings) {
  if (!places.has(strings)) places.set(strings, found(strings));
  return places.get(strings);
}

function found(strings) {
  let inTag = false;
  return strings.map((string) => {
    const [opens, closes] = [string.lastIndexOf("<"), string.lastIndexOf(">")];
    if (opens !== closes) inTag = opens > closes; // equal: there is neither
    return !inTag ? "text" : RAW.test(string) ? "raw" : "attribute";
  });
}
