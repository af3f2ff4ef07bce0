// Whether the page around is light or dark.

/** Calls `apply` with whether it is dark, now and whenever that changes; returns what ends it. */
export function followDark(apply: (isDark: boolean) => void): () => void {
  const prefers = window.matchMedia("(prefers-color-scheme: dark)");
  const update = (): void => apply(isDark(prefers.matches));
  prefers.addEventListener("change", update);
  const observer = new MutationObserver(update);
  observer.observe(outerBody(), { attributes: true, attributeFilter: ["data-jp-theme-light", "class"] });
  update();
  return () => {
    prefers.removeEventListener("change", update);
    observer.disconnect();
  };
}

function isDark(isPreferred: boolean): boolean {
  const body = outerBody();
  const isLight = body.getAttribute("data-jp-theme-light");
  if (isLight) return isLight === "false";
  if (body.classList.contains("vscode-dark")) return true;
  if (body.classList.contains("vscode-light")) return false;
  return isPreferred;
}

/** The body of the notebook page that this is in; that of this page where the one around may not be read. */
function outerBody(): HTMLElement {
  try {
    return window.parent.document.body;
  } catch {
    return document.body;
  }
}
