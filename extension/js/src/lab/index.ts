// JupyterLab's side panel: the plugin that Lab starts.
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from "@jupyterlab/application";
import { LabIcon } from "@jupyterlab/ui-components";
import { Widget } from "@lumino/widgets";

const plugin: JupyterFrontEndPlugin<void> = {
  id: "nbserve:endpoints",
  description: "Lists this machine's endpoints in the left area.",
  autoStart: true,
  activate: (app: JupyterFrontEnd) => {
    const w = new Widget();
    w.id = "nbserve-endpoints";
    w.title.icon = new LabIcon({ name: "nbserve:endpoints", svgstr: "<svg/>" });
    app.shell.add(w, "left");
  },
};

export default plugin;
