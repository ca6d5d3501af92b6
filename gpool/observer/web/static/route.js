// Where we are: the part of the address behind the "#".  "#/4711/processes?sort=age&pid=17"
//
// All that a view shows is in there, so a link can be shared, "back" works and a reload stays.

export const VIEWS = ["tree", "processes", "pools", "events"];

/** {node, view, params}; without a node: the overview of all nodes. */
export function parse(hash) {
  const [path, query = ""] = hash.replace(/^#?\/?/, "").split("?");
  const [node = "", view = ""] = path.split("/").map(decode);
  return {
    node: node || null,
    view: VIEWS.includes(view) ? view : VIEWS[0],
    params: Object.fromEntries(new URLSearchParams(query)),
  };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // somebody typed a lone "%"
  }
}

export function format({ node, view, params = {} }) {
  if (!node) return "#/";
  const filled = Object.entries(params).filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  const query = new URLSearchParams(filled).toString();
  return `#/${encodeURIComponent(node)}/${view}${query && `?${query}`}`;
}

/** The route with some params changed; null takes one away. */
export const changed = (route, params) => ({ ...route, params: { ...route.params, ...params } });
