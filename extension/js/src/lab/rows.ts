// The rows of the side panel: one for each server, and below it one for each of its endpoints.

import { listIcon, stopIcon, type LabIcon } from "@jupyterlab/ui-components";
import { h } from "../shared/dom";
import type { Endpoint, Place, Server } from "./api";
import { KeyedList, setText, type Row } from "./keyed";
import { condition, lifetime, lifetimeHelp, title, tone, traffic } from "./words";

/** What a person can do with them. */
export interface Actions {
  openPanel(place: Place): void;
  openLogs(place: Place): void;
  stopEndpoint(server: Server, endpoint: Endpoint): void;
  stopServer(server: Server): void;
  /** The paths of the notebooks whose kernels run here. */
  notebooks(): string[];
}

export class ServerRow implements Row<Server> {
  readonly element: HTMLElement;
  private readonly title = h("h3");
  private readonly note = h("span", { class: "nbserve-faint" });
  private readonly empty = h("p", { class: "nbserve-faint" }, "no endpoints yet");
  private readonly stop: HTMLButtonElement;
  private readonly endpoints: KeyedList<Endpoint>;

  constructor(
    private server: Server,
    private readonly actions: Actions,
  ) {
    const list = h("ul");
    this.stop = iconButton(stopIcon, () => actions.stopServer(this.server));
    const head = h("div", { class: "nbserve-head" }, h("div", { class: "nbserve-text" }, this.title, this.note), this.stop);
    this.element = h("section", {}, head, list, this.empty);
    this.endpoints = new KeyedList(list, ({ name }) => name, () => new EndpointRow(() => this.server, actions));
  }

  update(server: Server): void {
    this.server = server;
    const notebooks = this.actions.notebooks();
    setText(this.title, title(server));
    setText(this.note, `server\u00a0${server.pid}, ${lifetime(server, notebooks)}`);
    this.element.setAttribute("aria-label", `server ${server.pid}, ${title(server)}`);
    this.element.firstElementChild!.setAttribute("title", lifetimeHelp(server, notebooks));
    name(this.stop, `Stop server ${server.pid}`);
    this.empty.hidden = server.endpoints.length > 0;
    this.endpoints.update(server.endpoints);
  }
}

class EndpointRow implements Row<Endpoint> {
  readonly element: HTMLLIElement;
  private readonly open: HTMLButtonElement;
  private readonly logs: HTMLButtonElement;
  private readonly stop: HTMLButtonElement;
  private readonly condition = h("span", { class: "nbserve-condition" });
  private readonly traffic = h("span", { class: "nbserve-faint" });
  private endpoint!: Endpoint;

  constructor(
    private readonly server: () => Server,
    actions: Actions,
  ) {
    this.open = h("button", { type: "button", class: "nbserve-open", onclick: () => actions.openPanel(this.place) });
    this.logs = iconButton(listIcon, () => actions.openLogs(this.place));
    this.stop = iconButton(stopIcon, () => {
      if (!this.isStopping) actions.stopEndpoint(this.server(), this.endpoint);
    });
    const text = h("div", { class: "nbserve-text" }, this.open, this.condition);
    const dot = h("span", { class: "nbserve-dot", "aria-hidden": "true" });
    this.element = h("li", {}, dot, text, this.logs, this.stop, this.traffic);
  }

  update(endpoint: Endpoint): void {
    this.endpoint = endpoint;
    this.element.dataset.tone = tone(endpoint.state);
    setText(this.open, endpoint.name);
    setText(this.condition, condition(endpoint));
    setText(this.traffic, traffic(endpoint));
    this.open.title = `Open the panel of ${endpoint.name}${endpoint.version ? `, version ${endpoint.version}` : ""}`;
    name(this.logs, `Logs of ${endpoint.name}`);
    name(this.stop, `Stop ${endpoint.name}`);
    // Not `disabled`, which would take the focus that the dialog gives back.
    this.stop.setAttribute("aria-disabled", `${this.isStopping}`);
  }

  private get isStopping(): boolean {
    return this.endpoint.state === "STOPPING";
  }

  private get place(): Place {
    return { name: this.endpoint.name, serverId: this.server().server_id };
  }
}

export function iconButton(icon: LabIcon, onclick: () => void): HTMLButtonElement {
  const button = h("button", { type: "button", class: "nbserve-icon", onclick });
  icon.element({ container: button, tag: "span", stylesheet: "listing", width: "16px", height: "16px" });
  return button;
}

/** What a button without text is called, by those who see it and those who hear it. */
export function name(button: HTMLButtonElement, text: string): void {
  button.title = text;
  button.setAttribute("aria-label", text);
}
