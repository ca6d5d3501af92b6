// Links to follow: wherever a process is named, its window is one click away.

import { html } from "./template.js";
import { repeat } from "./vendor/lit-html/directives/repeat.js";
import { pid } from "./format.js";
import { mark } from "./status.js";

/** Of a REF; plain text where there is nothing to follow: a monitor of a name that nobody has. */
export function processLink(app, ref) {
  if (!ref) return html`–`;
  if (ref.id === null)
    return html`<span class="process"
      ><span class="name">${ref.label}</span> <span class="pid">no process</span></span
    >`;
  const title = `${ref.label}, ${pid(ref.id)}, ${ref.status}`;
  return html`<a class="process" href=${app.link({ pid: ref.id })} title=${title}
    >${mark(ref.status)}<span class="name">${ref.label}</span> <span class="pid">${pid(ref.id)}</span></a
  >`;
}

export const processList = (app, refs, more) =>
  html`<ul class="refs">
    ${repeat(
      refs,
      (ref) => ref.id ?? ref.label,
      (ref) => html`<li>${processLink(app, ref)}</li>`,
    )}
    ${more ? html`<li class="dim">and ${more} more</li>` : ""}
  </ul>`;
