// How numbers, durations and names are worded: the same in every view.

/** A duration, as short as it can be understood: "430 ms", "12.5 s", "3 min 05 s", "2 h 14 min", "3 d 4 h". */
export function seconds(value) {
  if (value === null || value === undefined) return "–";
  if (value > 0 && value < 0.0095) return `${(value * 1000).toFixed(1)} ms`;
  if (value < 0.9995) return `${Math.round(value * 1000)} ms`;
  if (value < 59.95) return `${value.toFixed(1)} s`;
  const whole = Math.round(value);
  if (whole < 3600) return two(whole, 60, "min", "s");
  if (whole < 86400) return two(Math.floor(whole / 60), 60, "h", "min");
  return two(Math.floor(whole / 3600), 24, "d", "h");
}

function two(value, base, big, small) {
  return `${Math.floor(value / base)} ${big} ${String(value % base).padStart(2, "0")} ${small}`;
}

/** An epoch time as the viewer's clock shows it; with the day where that is not today. */
export function clock(epoch) {
  const at = new Date(epoch * 1000);
  const time = at.toLocaleTimeString("en-GB");
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString("en-CA")} ${time}`;
}

export const isoTime = (epoch) => new Date(epoch * 1000).toISOString();

export const number = (value) =>
  value === null || value === undefined ? "–" : value.toLocaleString("en-US");

export const counted = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

export const pid = (id) => `#PID<${id}>`;

/** A place in the code with the last folder of its file only: the whole path is in the window. */
export const brief = (text) =>
  text === null ? "–" : text.replace(/[^\s(]*\/([^\s()/]+\/[^\s()/]+:\d+)/, "$1");

// Control characters, and those that are not seen but change the order of what is; a stack's lines stay lines.
const UNSEEN =
  /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff]/g;

/** A text of which all is seen: "\\u202e" for the character that turns the rest of a line round. */
export const visible = (text) =>
  text.replace(UNSEEN, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** As it is seen, since that may be longer. */
export function shorten(text, most) {
  const seen = visible(text);
  return seen.length > most ? `${seen.slice(0, most - 1)}…` : seen;
}
