// Take the endpoint elsewhere. The export runs at the server: a page that is loaded again finds it as far as it is.

import { button, h } from "../../shared/dom";
import { bytes, plural } from "../../shared/units";
import type { Exported, ExportStatus } from "../protocol";
import { command, type Drawer, field, Saying, type Tools } from "./drawer";

const KEEP_MS = 60_000;
const KINDS = { "": "what device says", cpu: "a CPU", gpu: "a GPU" };
const TOLD = "A folder with the bundle, a Dockerfile, files for Kubernetes and Ray Serve, and a README, proven with the recorded requests.";

export class ExportDrawer implements Drawer {
  readonly label = "Export";
  readonly content: HTMLElement;
  private readonly directory: HTMLInputElement;
  private readonly build = h("input", { type: "text", placeholder: "none: do not build", spellcheck: "false", "aria-label": "image tag" });
  private readonly kind = h("select", { "aria-label": "runs on" }, ...Object.entries(KINDS).map(([value, label]) => h("option", { value }, label)));
  private readonly start = button("Export", () => void this.toggle());
  private readonly saying = new Saying();
  private readonly lines = h("pre", { class: "lines short", role: "log", "aria-label": "progress of the export", tabindex: 0, hidden: "" });
  private readonly outcome = h("div", { class: "outcome" });
  private readonly bundleSaying = new Saying();
  private failure = "";
  private shown = "";
  private isFilled = false;

  constructor(private readonly tools: Tools) {
    this.directory = h("input", { type: "text", value: `${tools.name}-export`, spellcheck: "false", "aria-label": "folder" });
    const options = [field("Folder", this.directory), field("Image tag", this.build), field("Runs on", this.kind)];
    const row = h("div", { class: "row", onkeydown: (event: KeyboardEvent) => this.key(event), oninput: () => (this.isFilled = true) }, ...options, this.start);
    const download = button("Download the bundle", () => void this.download("/bundle", `${tools.name}-${tools.store.endpoint?.version ?? "bundle"}`, download, this.bundleSaying));
    const hint = h("p", { class: "aside" }, "The bundle alone, with its tuned settings, is what ", h("code", {}, "nbserve serve FOLDER"), " serves.");
    const bundle = h("div", { class: "row alone" }, download, hint, this.bundleSaying.element);
    this.content = h("div", { class: "export" }, h("p", {}, TOLD), row, this.saying.element, this.lines, this.outcome, bundle);
  }

  update(): void {
    const { exporting, presence } = this.tools.store;
    this.start.textContent = exporting?.is_running ? "Stop" : "Export";
    this.start.disabled = presence !== "live";
    this.fill(exporting);
    const now_s = this.tools.store.samples.last?.time_s ?? 0;
    if (this.failure) this.saying.say(this.failure, true);
    else this.saying.say(inWords(exporting, now_s), !!exporting?.error);
    this.show(exporting);
  }

  /** What an export that is found was asked for, unless somebody types already. */
  private fill(exporting: ExportStatus | null): void {
    if (this.isFilled || !exporting) return;
    this.isFilled = true;
    this.directory.value = exporting.directory;
    this.build.value = exporting.build ?? "";
    this.kind.value = exporting.gpu === null ? "" : exporting.gpu ? "gpu" : "cpu";
  }

  private show(exporting: ExportStatus | null): void {
    // Built anew only when it is another: buttons keep their focus, and texts that are marked stay so.
    const key = JSON.stringify(exporting && [exporting.lines, exporting.result, exporting.error]);
    if (key === this.shown) return;
    this.shown = key;
    const { lines, result, error } = exporting ?? { lines: [], result: null, error: null };
    this.lines.hidden = !lines.length || !!result;
    this.lines.textContent = lines.join("\n");
    this.lines.scrollTop = this.lines.scrollHeight;
    this.outcome.replaceChildren(...(result ? this.result(result) : error ? [h("pre", { class: "bad", role: "alert", tabindex: 0 }, error)] : []));
  }

  private result(result: Exported): HTMLElement[] {
    const name = result.path.slice(result.path.lastIndexOf("/") + 1);
    const saying = new Saying();
    const download = button("Download the folder", () => void this.download("/export", name, download, saying));
    const told = [sizes(result), result.proof, ...result.notes.map((note) => `note: ${note}`)];
    return [
      command(result.path),
      ...told.map((text) => h("p", {}, text)),
      ...result.commands.map((line) => command(line)),
      h("div", { class: "row" }, download, saying.element),
    ];
  }

  private async toggle(): Promise<void> {
    const { store, ask } = this.tools;
    const isRunning = store.exporting?.is_running;
    this.failure = "";
    this.isFilled = true;
    try {
      store.exporting = isRunning ? await ask.json<ExportStatus>("DELETE", "/export") : await ask.json<ExportStatus>("POST", "/export", this.wish());
    } catch (error) {
      this.failure = (error as Error).message;
    }
    this.update();
  }

  private wish(): object {
    const kind = this.kind.value;
    return { directory: this.directory.value, build: this.build.value || null, gpu: kind ? kind === "gpu" : null };
  }

  private key(event: KeyboardEvent): void {
    if (event.key !== "Enter" || !(event.target instanceof HTMLInputElement)) return;
    event.preventDefault();
    if (!this.start.disabled && !this.tools.store.exporting?.is_running) void this.toggle();
  }

  private async download(path: string, name: string, from: HTMLButtonElement, saying: Saying): Promise<void> {
    from.disabled = true;
    saying.say("packing\u2026");
    try {
      save(await this.tools.ask.blob("GET", path), `${name}.tar.gz`);
      saying.say(`saved as ${name}.tar.gz`);
    } catch (error) {
      saying.say((error as Error).message, true);
    }
    from.disabled = false;
  }
}

function inWords(exporting: ExportStatus | null, now_s: number): string {
  if (!exporting) return "";
  if (exporting.is_running) return `exporting to ${exporting.directory}\u2026 ${Math.max(0, Math.floor(now_s - exporting.began_s))} s`;
  return exporting.result ? "exported to" : "not exported";
}

function sizes({ files, size_bytes, image, image_bytes }: Exported): string {
  return [plural(files, "file"), bytes(size_bytes), ...(image ? [`image ${image}, ${bytes(image_bytes ?? 0)}`] : [])].join(" \u00b7 ");
}

function save(blob: Blob, file: string): void {
  const url = URL.createObjectURL(blob);
  h("a", { href: url, download: file }).click();
  setTimeout(() => URL.revokeObjectURL(url), KEEP_MS);
}
