// JupyterLab's plugin: the side panel with this machine's endpoints, and the tabs that it opens.

import { ILayoutRestorer, type JupyterFrontEnd, type JupyterFrontEndPlugin } from "@jupyterlab/application";
import { ICommandPalette, MainAreaWidget, WidgetTracker } from "@jupyterlab/apputils";
import { listIcon, type LabIcon } from "@jupyterlab/ui-components";
import type { Widget } from "@lumino/widgets";
import { Api, type Place } from "./api";
import { endpointsIcon } from "./icon";
import { LogView } from "./logs";
import { PanelView } from "./panel";
import { Sidebar } from "./sidebar";
import "./style.css";

const SHOW = "nbserve:show-endpoints";
const OPEN_PANEL = "nbserve:open-panel";
const OPEN_LOGS = "nbserve:open-logs";
// Below the running kernels, above the table of contents.
const RANK = 250;

type View = Widget & { readonly place: Place };
type Tab = MainAreaWidget<View>;

interface TabKind {
  command: string;
  namespace: string;
  icon: LabIcon;
  title(name: string): string;
  make(place: Place): View;
}

const plugin: JupyterFrontEndPlugin<void> = {
  id: "nbserve:endpoints",
  description: "Lists the endpoints of this machine, and opens their panels and logs.",
  autoStart: true,
  optional: [ICommandPalette, ILayoutRestorer],
  activate,
};

export default plugin;

function activate(app: JupyterFrontEnd, palette: ICommandPalette | null, restorer: ILayoutRestorer | null): void {
  const api = new Api();
  const open = (command: string) => (place: Place) => void app.commands.execute(command, { ...place });
  const sidebar = new Sidebar(api, {
    openPanel: open(OPEN_PANEL),
    openLogs: open(OPEN_LOGS),
    notebooks: () => Array.from(app.serviceManager.sessions.running(), (session) => session.path),
  });
  app.shell.add(sidebar, "left", { rank: RANK });
  restorer?.add(sidebar, sidebar.id);
  app.commands.addCommand(SHOW, { label: "Show Endpoints", icon: endpointsIcon, execute: () => app.shell.activateById(sidebar.id) });
  palette?.addItem({ command: SHOW, category: "nbserve" });
  for (const kind of tabKinds(api)) addTabs(app, restorer, kind);
}

function tabKinds(api: Api): TabKind[] {
  return [
    {
      command: OPEN_PANEL,
      namespace: "nbserve-panel",
      icon: endpointsIcon,
      title: (name) => name,
      make: (place) => new PanelView(api.baseUrl, place),
    },
    {
      command: OPEN_LOGS,
      namespace: "nbserve-logs",
      icon: listIcon,
      title: (name) => `${name}: logs`,
      make: (place) => new LogView(api, place),
    },
  ];
}

/** One tab for each endpoint: opening it again brings it to the front, and reloading the page brings it back. */
function addTabs(app: JupyterFrontEnd, restorer: ILayoutRestorer | null, kind: TabKind): void {
  const tracker = new WidgetTracker<Tab>({ namespace: kind.namespace });
  app.commands.addCommand(kind.command, {
    execute: (given) => {
      const place: Place = { name: String(given["name"]), serverId: String(given["serverId"]) };
      const tab = tracker.find(({ content }) => id(content.place) === id(place)) ?? makeTab(kind, place);
      if (!tracker.has(tab)) void tracker.add(tab);
      if (!tab.isAttached) app.shell.add(tab, "main");
      app.shell.activateById(tab.id);
    },
  });
  void restorer?.restore(tracker, {
    command: kind.command,
    args: ({ content }) => ({ ...content.place }),
    name: ({ content }) => id(content.place),
  });
}

function makeTab(kind: TabKind, place: Place): Tab {
  const content = kind.make(place);
  const tab: Tab = new MainAreaWidget({ content });
  tab.id = `${kind.namespace}-${id(place)}`;
  tab.title.label = kind.title(place.name);
  tab.title.icon = kind.icon;
  tab.title.closable = true;
  tab.toolbar.hide();
  return tab;
}

function id(place: Place): string {
  return `${place.serverId}-${place.name}`;
}
