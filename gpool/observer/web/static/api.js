// The only place that talks to the server.  Every path is relative to the page, so any mount point does.

const PATIENCE = 10_000; // ms; a node whose hub is blocked answers within one second

export class ApiError extends Error {
  /** status: 0 where nobody answered at all; fromNode: the node itself said so, not what stands before it. */
  constructor(status, message, fromNode = false) {
    super(message);
    this.status = status;
    this.fromNode = fromNode;
  }
}

export async function get(path, signal) {
  return answer(fetch(`api/${path}`, { signal: limited(signal), headers: { Accept: "application/json" } }));
}

/** Ask a node to act.  The custom header is what a foreign page cannot send. */
export async function post(path, body) {
  const headers = { "Content-Type": "application/json", "X-GPool-Action": "1" };
  return answer(
    fetch(`api/${path}`, { method: "POST", headers, body: JSON.stringify(body), signal: limited() }),
  );
}

export const nodePath = (node, path, query = {}) => {
  const filled = Object.entries(query).filter(
    ([, value]) => value !== null && value !== undefined && value !== "",
  );
  const search = new URLSearchParams(filled).toString();
  return `nodes/${encodeURIComponent(node)}/v1/${path}${search && `?${search}`}`;
};

function limited(signal) {
  const limit = AbortSignal.timeout(PATIENCE);
  return signal ? AbortSignal.any([signal, limit]) : limit;
}

async function answer(request) {
  let response;
  try {
    response = await request;
  } catch (error) {
    if (error.name === "AbortError") throw error; // ours: nobody waits for it any more
    throw new ApiError(0, error.name === "TimeoutError" ? "no answer" : "the server cannot be reached");
  }
  const body = await response.json().catch(() => ({}));
  if (!response.ok)
    throw new ApiError(response.status, body.error ?? `the server said ${response.status}`, "node" in body);
  return body;
}
