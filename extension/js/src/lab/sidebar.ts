// The side panel: asks for the servers of this machine while it is seen, and stops what a person wants stopped.

import { Dialog, showDialog, showErrorMessage } from "@jupyterlab/apputils";
import { refreshIcon } from "@jupyterlab/ui-components";
import { Poll } from "@lumino/polling";
import { Widget } from "@lumino/widgets";
import { h } from "../shared/dom";
import type { Api, Endpoint, Place, Server } from "./api";
import { endpointsIcon } from "./icon";
import { KeyedList, setText } from "./keyed";
import { iconButton, name, ServerRow, type Actions } from "./rows";
import { counted, endpointsOf, title } from "./words";

const POLL_MS = 2000;
const SLOWEST_POLL_MS = 15_000;

export type Open = Pick<Actions, "openPanel" | "openLogs" | "notebooks">;

export class Sidebar extends Widget {
  private readonly refresh = iconButton(refreshIcon, () => void this.poll.refresh());
  private readonly failure = h("p", { role: "alert", class: "nbserve-failure", hidden: true });
  private readonly empty = h("p", { class: "nbserve-empty", hidden: true }, "No endpoint is running. Start one from a cell: ", h("code", {}, "%%serve NAME"));
  private readonly list = h("div", { class: "nbserve-servers", tabindex: -1 });
  private readonly rows: KeyedList<Server>;
  private readonly poll: Poll;
  private readonly stopping = new Set<string>();

  constructor(
    private readonly api: Api,
    open: Open,
  ) {
    super();
    this.id = "nbserve-endpoints";
    this.addClass("nbserve-sidebar");
    this.title.icon = endpointsIcon;
    this.title.caption = "Endpoints (nbserve)";
    this.node.setAttribute("role", "region");
    this.node.setAttribute("aria-label", "Endpoints");
    name(this.refresh, "Refresh the endpoints");
    this.node.append(h("header", {}, h("h2", {}, "Endpoints"), this.refresh), this.failure, this.empty, this.list);
    const actions = { ...open, stopEndpoint: this.stopEndpoint.bind(this), stopServer: this.stopServer.bind(this) };
    this.rows = new KeyedList(this.list, (server) => server.server_id, (server) => new ServerRow(server, actions));
    this.poll = new Poll({
      name: "nbserve:endpoints",
      factory: () => this.ask(),
      frequency: { interval: POLL_MS, max: SLOWEST_POLL_MS, backoff: true },
      standby: () => !this.isVisible || document.hidden,
    });
  }

  dispose(): void {
    this.poll.dispose();
    super.dispose();
  }

  protected onAfterShow(): void {
    void this.poll.refresh();
  }

  protected onActivateRequest(): void {
    (this.list.querySelector<HTMLElement>(".nbserve-open") ?? this.refresh).focus();
  }

  private async ask(): Promise<void> {
    try {
      this.render(await this.api.servers());
    } catch (error) {
      this.tell((error as Error).message);
      throw error;
    }
  }

  private render(servers: Server[]): void {
    this.tell("");
    this.empty.hidden = servers.length > 0;
    const hadFocus = this.list.contains(document.activeElement);
    this.rows.update(servers.map((server) => this.marked(server)));
    // What had the focus is stopped: the keyboard stays in the list.
    if (hadFocus && !this.list.contains(document.activeElement)) this.list.focus();
  }

  /** What is shown while the servers cannot be asked is what they said last. */
  private tell(failure: string): void {
    this.failure.hidden = !failure;
    setText(this.failure, failure);
    this.list.toggleAttribute("data-stale", !!failure);
    if (failure) this.empty.hidden = true;
  }

  /** The server, with a state of ours for what was told to stop but is not gone yet. */
  private marked(server: Server): Server {
    const isStopping = (name: string): boolean =>
      this.stopping.has(server.server_id) || this.stopping.has(key({ name, serverId: server.server_id }));
    const endpoints = server.endpoints.map((endpoint) => (isStopping(endpoint.name) ? { ...endpoint, state: "STOPPING" } : endpoint));
    return { ...server, endpoints };
  }

  private async stopEndpoint(server: Server, endpoint: Endpoint): Promise<void> {
    const waiting = endpoint.queued ? ` ${counted(endpoint.queued, "request")} in its queue will be answered first.` : "";
    const body = `It answers no new requests, and its workers end.${waiting}`;
    const place = { name: endpoint.name, serverId: server.server_id };
    await this.stop(`Stop ${endpoint.name}?`, body, key(place), () => this.api.stopEndpoint(place));
  }

  private async stopServer(server: Server): Promise<void> {
    const body = `The server of ${title(server)}, process ${server.pid}, ends, and with it ${endpointsOf(server)}.`;
    await this.stop("Stop the server?", body, server.server_id, () => this.api.stopServer(server.server_id));
  }

  private async stop(title: string, body: string, mark: string, order: () => Promise<void>): Promise<void> {
    const answer = await showDialog({ title, body, buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: "Stop" })] });
    if (!answer.button.accept) return;
    this.stopping.add(mark);
    void this.poll.refresh();
    try {
      await order();
    } catch (error) {
      await showErrorMessage("It was not stopped", (error as Error).message);
    } finally {
      this.stopping.delete(mark);
      void this.poll.refresh();
    }
  }
}

function key(place: Place): string {
  return `${place.serverId}/${place.name}`;
}
