// Starts the viewer in its page.

import { App } from "./app";
import { decode } from "./decode";
import { h } from "../shared/dom";
import { hidePicture } from "../shared/picture";
import css from "./style.css";

declare global {
  interface Window {
    nbserveTrace?: App;
  }
}

const ROOM_PX = 4;

async function start(): Promise<void> {
  document.head.append(h("style", {}, css));
  const root = document.getElementById("trace")!;
  try {
    const app = new App(await decode(document.getElementById("pack")!.textContent ?? ""));
    document.getElementById("pack")!.remove();
    app.mount(root);
    window.nbserveTrace = app;
    growFrame(root);
    hidePicture(outerFrame());
  } catch (error) {
    root.replaceChildren(h("p", { class: "failure", role: "alert" }, `The timeline cannot be shown: ${(error as Error).message}`));
    console.error(error);
  }
  root.setAttribute("aria-busy", "false");
}

/** Inside a notebook the frame is as high as what is in it. */
function growFrame(root: HTMLElement): void {
  const frame = outerFrame();
  if (!frame) return;
  const grow = (): void => void (frame.style.height = `${Math.ceil(root.getBoundingClientRect().height) + ROOM_PX}px`);
  new ResizeObserver(grow).observe(root);
  grow();
}

function outerFrame(): HTMLElement | null {
  try {
    return window.frameElement as HTMLElement | null;
  } catch {
    return null;
  }
}

void start();
