// Copying text with one click.

import { button, h } from "./dom";

const THANKS_MS = 1500;

/** A button that copies what `text` gives when it is pressed, and says so for a moment. */
export function copyButton(label: string, text: () => string, title: string): HTMLButtonElement {
  const made = button(label, () => void copy(text(), made, label), title);
  return made;
}

async function copy(text: string, from: HTMLButtonElement, label: string): Promise<void> {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    copyByHand(text);
  }
  // What stands beside it stays where it is.
  from.style.minWidth = `${from.offsetWidth}px`;
  from.textContent = "copied";
  setTimeout(() => (from.textContent = label), THANKS_MS);
}

/** Frames may be kept from the clipboard; the selection can be copied all the same. */
function copyByHand(text: string): void {
  const area = h("textarea", { style: "position: fixed; left: -999px" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}
