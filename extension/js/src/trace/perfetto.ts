// Perfetto's own viewer, where the Jupyter server offers it. Nothing outside of that server is ever asked.

const PING_MS = 100;
const PATIENCE_MS = 30_000;

/** The address of Perfetto's viewer; null outside of Jupyter, or where the extension has none. */
export async function perfettoUrl(): Promise<string | null> {
  try {
    const config = window.parent.document.getElementById("jupyter-config-data")?.textContent;
    if (!config) return null;
    const { baseUrl } = JSON.parse(config) as { baseUrl?: string };
    const url = new URL(`${baseUrl ?? "/"}nbserve/perfetto/`, window.parent.location.origin).href;
    // Asked by the notebook's page: this frame is allowed no connections.
    const answer = await window.parent.fetch(url, { method: "HEAD" });
    return answer.ok ? url : null;
  } catch {
    return null;
  }
}

/** Open a trace in Perfetto's viewer: it answers PING once it can take the trace. */
export async function openInPerfetto(url: string, title: string, trace: () => Blob): Promise<void> {
  const viewer = window.open(`${url}index.html#!/viewer?hideSidebar=true`);
  if (!viewer) throw new Error("the browser did not open a window: allow pop-ups for this page and try again");
  const buffer = await trace().arrayBuffer();
  await answered(viewer);
  viewer.postMessage({ perfetto: { buffer, title } }, new URL(url).origin, [buffer]);
}

function answered(viewer: Window): Promise<void> {
  return new Promise((resolve, reject) => {
    const ping = setInterval(() => viewer.postMessage("PING", "*"), PING_MS);
    const stop = (): void => {
      clearInterval(ping);
      clearTimeout(patience);
      window.removeEventListener("message", listener);
    };
    const patience = setTimeout(() => {
      stop();
      reject(new Error("Perfetto did not answer: download the trace and open it by hand"));
    }, PATIENCE_MS);
    const listener = (event: MessageEvent): void => {
      if (event.source !== viewer || event.data !== "PONG") return;
      stop();
      resolve();
    };
    window.addEventListener("message", listener);
  });
}
