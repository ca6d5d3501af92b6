// Asking again and again: at the viewer's pace, only while somebody looks, never twice at once.

import { get } from "./api.js";

export const PACES = [1, 2, 5, 15]; // seconds
const SLOWEST = 30; // seconds: what a failing poll backs off to
const KEY = "gpool-observer-pace";

/** How often the viewer wants to ask; remembered in this browser. */
export const pace = { seconds: 2, paused: false, ...remembered() };

function remembered() {
  try {
    const { seconds, paused } = JSON.parse(localStorage.getItem(KEY)) ?? {};
    return PACES.includes(seconds) ? { seconds, paused: paused === true } : {};
  } catch {
    return {}; // no storage here, or somebody else's words in it
  }
}

export function setPace(changes) {
  Object.assign(pace, changes);
  try {
    localStorage.setItem(KEY, JSON.stringify(pace));
  } catch {
    // then it is forgotten at the next reload
  }
}

/**
 * Polls one source: an object with `path()`, what to ask for now (null: nothing), `take(answer)`, and
 * `refused(error)`, which answers whether that error was expected.
 *
 * `wake()` asks at once: the path may have changed.
 */
export class Poll {
  failing = null; // {message, since: ms}: since when there is no answer

  #source;
  #changed; // called after every answer
  #least; // seconds between two questions, however fast the viewer's pace
  #asking = null; // {path, controller} of the request under way
  #timer = null;
  #failures = 0; // in a row
  #missed = false; // there was something to ask for while nobody looked

  constructor(source, changed, { least = 0 } = {}) {
    this.#source = source;
    this.#changed = changed;
    this.#least = least;
  }

  wake() {
    const path = this.#source.path();
    if (this.#asking?.path === path) return;
    this.#asking?.controller.abort();
    this.#asking = null;
    clearTimeout(this.#timer);
    this.#missed = path !== null && document.hidden;
    if (path === null) this.failing = null;
    else if (!this.#missed) this.#ask(path);
  }

  /** The page is seen again. */
  shown() {
    if (!pace.paused || this.#missed) this.wake();
  }

  async #ask(path) {
    const asking = { path, controller: new AbortController() };
    this.#asking = asking;
    try {
      const answer = await get(path, asking.controller.signal);
      if (this.#asking === asking) this.#succeeded(answer);
    } catch (error) {
      if (error.name === "AbortError") return;
      if (!(error.status >= 0)) console.error(error); // a bug of the page, not an answer
      if (this.#asking === asking) this.#failed(error);
    }
    if (this.#asking !== asking) return;
    this.#asking = null;
    this.#changed();
    this.#later();
  }

  #succeeded(answer) {
    this.#failures = 0;
    this.failing = null;
    this.#source.take(answer);
  }

  #failed(error) {
    if (this.#source.refused?.(error)) {
      this.failing = null;
      return;
    }
    this.#failures += 1;
    this.failing = { message: error.message, since: this.failing?.since ?? Date.now() };
  }

  #later() {
    clearTimeout(this.#timer);
    if (pace.paused || document.hidden) return;
    const usual = Math.max(pace.seconds, this.#least);
    const wait = this.#failures ? Math.min(SLOWEST, usual * 2 ** Math.min(this.#failures - 1, 5)) : usual;
    this.#timer = setTimeout(() => pace.paused || this.wake(), wait * 1000);
  }
}
