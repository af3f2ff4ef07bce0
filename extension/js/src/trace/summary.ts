// The first thing a person reads: where the time goes, in one sentence and one bar, and what can be done about it.

import { copyButton } from "../shared/clipboard";
import { button, h } from "../shared/dom";
import type { Finding, Header, Span } from "./model";
import { stageBar, stageLabel } from "./stages";
import { duration, figures, percent, plural } from "../shared/units";

/** The request in the middle of all, by how long it took; -1 when there is none. */
export function medianRequest(spans: Span[]): number {
  const order = spans.map((_, i) => i).sort((a, b) => spans[a]!.total_us - spans[b]!.total_us);
  return order[order.length >> 1] ?? -1;
}

export function summary(header: Header, onshow: (request: number) => void): HTMLElement {
  const median = medianRequest(header.spans);
  const span = header.spans[median];
  const parts = span ? [h("p", { class: "sentence" }, ...sentence(header, span), " ", showButton(() => onshow(median))), stageBar(span.stages)] : [h("p", { class: "sentence" }, nothing(header))];
  return h("section", { class: "summary", "aria-label": "where the time goes" }, ...parts);
}

function nothing(header: Header): string {
  return `${header.endpoint} answered no request while this was recorded.`;
}

function showButton(onshow: () => void): HTMLElement {
  return button("show it", onshow, "zoom to this request in the timeline");
}

function sentence(header: Header, span: Span): Node[] {
  const stages = span.stages.slice().sort((a, b) => b[1] - a[1]);
  const [first, second] = stages.map(([name, us]) => ({ name, us, share: us / (span.total_us || 1) }));
  const words: (Node | string)[] = ["The median request to ", h("b", {}, header.endpoint), " took ", h("b", {}, duration(span.total_us)), ": "];
  if (first) words.push(h("b", {}, `${percent(first.share)} ${stageLabel(first.name)}`), ` (${duration(first.us)})`);
  if (second && second.share >= 0.05) words.push(`, then ${percent(second.share)} ${stageLabel(second.name)} (${duration(second.us)})`);
  words.push(`. ${plural(header.spans.length, "request")} in ${plural(header.batches.length, "batch")} were recorded.`);
  return words.map((word) => (typeof word === "string" ? document.createTextNode(word) : word));
}

/** The findings, the one with most to gain open. */
export function findings(header: Header): HTMLElement | null {
  if (!header.findings.length) return null;
  const items = header.findings.map((finding, i) => h("li", {}, item(header, finding, i === 0)));
  return h("section", { class: "findings", "aria-label": "findings" }, h("ol", {}, ...items));
}

function item(header: Header, finding: Finding, isOpen: boolean): HTMLElement {
  const gain = finding.expected_gain > 1.02 ? h("em", {}, `up to ${figures(finding.expected_gain)}\u00d7 faster`) : null;
  const head = h("summary", {}, h("b", {}, finding.name.replaceAll("_", " ").replaceAll("-", " ")), h("span", {}, finding.figure), gain);
  const command = commandOf(header.endpoint, finding);
  const body = [h("p", {}, finding.why), h("p", {}, h("b", {}, "Fix: "), finding.fix)];
  return h("details", { open: isOpen && "" }, head, ...body, command ? copyable(command) : null);
}

/** The line that tries a finding's fix; null when the fix is in the code. */
export function commandOf(endpoint: string, finding: Finding): string | null {
  const settings = Object.entries(finding.settings);
  if (!settings.length) return null;
  return `%serve profile ${endpoint} --ab ${settings.map(([name, value]) => `${name}=${written(value)}`).join(",")}`;
}

/** As Python writes it. */
function written(value: unknown): string {
  return value === true ? "True" : value === false ? "False" : String(value);
}

function copyable(command: string): HTMLElement {
  const copy = copyButton("copy", () => command, "copy the command that tries this fix");
  return h("p", { class: "command" }, "Prove it: ", h("code", {}, command), copy);
}
