// The panel's way in: as a widget of a notebook, and for JupyterLab's side panel.

import { h } from "../shared/dom";
import { hidePicture } from "../shared/picture";
import type { Model } from "./comm_carrier";
import { Panel } from "./panel";
import { type Place, pickCarrier } from "./pick";
import type { Snapshot } from "./protocol";

/** Shows an endpoint in an element, without any kernel; returns what takes it away. */
export function mount(element: HTMLElement, place: Place): () => void {
  return show(element, place, null);
}

function render({ model, el }: { model: Model; el: HTMLElement }): () => void {
  const place = { name: String(model.get("name")), serverId: String(model.get("server_id")) };
  return show(el, place, model);
}

function show(element: HTMLElement, place: Place, model: Model | null): () => void {
  const host = h("div");
  const panel = new Panel({
    name: place.name,
    snapshot: (model?.get("snapshot") ?? {}) as Snapshot,
    line: String(model?.get("line") ?? ""),
  });
  panel.mount(host);
  element.append(host);
  requestAnimationFrame(() => hidePicture(host));
  let isStopped = false;
  void pickCarrier(place, model).then((carrier) => isStopped || panel.follow(carrier));
  return () => {
    isStopped = true;
    panel.stop();
    host.remove();
  };
}

export default { render };
