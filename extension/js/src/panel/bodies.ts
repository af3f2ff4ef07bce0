// Bodies of requests and answers as text. Pure.

export interface Body {
  type: string;
  base64: string;
}

export function bytesOf(base64: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
}

/** The text that a body is; null when it is none. */
export function textOf({ base64 }: Body): string | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytesOf(base64));
    return text.includes("\u0000") ? null : text;
  } catch {
    return null;
  }
}

/** A body to read: JSON in lines, text as it is, and of others what they are. */
export function readable(body: Body): string {
  const text = textOf(body);
  if (text === null) return sizeOf(body);
  if (!body.type.includes("json")) return text;
  try {
    return pretty(JSON.parse(text));
  } catch {
    return text;
  }
}

export function sizeOf(body: Body): string {
  return `${bytesOf(body.base64).length.toLocaleString("en-US")} bytes of ${body.type || "no type"}`;
}

const WIDE = 62;

/** JSON with as much on each line as is easily read: rows of numbers stay rows, and long ones are filled. */
export function pretty(value: unknown, indent = ""): string {
  const short = oneLine(value);
  if (value === null || typeof value !== "object" || short.length + indent.length <= WIDE) return short;
  const further = `${indent}  `;
  const isList = Array.isArray(value);
  const lines = isList ? filled(value.map((each) => pretty(each, further)), WIDE - further.length) : members(value, further);
  return `${isList ? "[" : "{"}\n${further}${lines.join(`,\n${further}`)}\n${indent}${isList ? "]" : "}"}`;
}

function members(value: object, indent: string): string[] {
  return Object.entries(value).map(([key, each]) => `${JSON.stringify(key)}: ${pretty(each, indent)}`);
}

function oneLine(value: unknown): string {
  return JSON.stringify(value, null, 1)
    .replace(/\n\s*/g, " ")
    .replace(/([[{]) /g, "$1")
    .replace(/ ([\]}])/g, "$1");
}

/** As many words on each line as fit. */
function filled(words: string[], width: number): string[] {
  const lines: string[] = [];
  for (const word of words) {
    const last = lines[lines.length - 1];
    const isLong = last === undefined || word.includes("\n") || last.length + word.length + 2 > width;
    if (isLong) lines.push(word);
    else lines[lines.length - 1] = `${last}, ${word}`;
  }
  return lines;
}
