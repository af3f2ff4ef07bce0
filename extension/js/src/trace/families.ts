// Which family an event belongs to: it says the colour, so that the kind of work is seen before any name is read.

import look from "../shared/look.json";
import type { Header } from "./model";

/** The families; an event's is an index into these. The picture in nbserve/trace/picture.py reads the same file. */
export const FAMILIES = look.families;

export function familyNamed(name: string): number {
  return FAMILIES.findIndex((family) => family.name === name);
}

const PATTERNS = FAMILIES.map(({ pattern }) => (pattern ? new RegExp(pattern, "i") : null));
const OF_CATEGORY: Record<string, string> = look.categories;

/** The family of each name, and of each category that says more than a name (else -1). */
export function familiesOf(header: Header): { ofName: Uint8Array; ofCategory: Int8Array } {
  const ofName = Uint8Array.from(header.names, familyOfName);
  const ofCategory = Int8Array.from(header.categories, (category) => familyNamed(OF_CATEGORY[category] ?? ""));
  return { ofName, ofCategory };
}

function familyOfName(name: string): number {
  const found = PATTERNS.findIndex((pattern) => pattern?.test(name));
  return found < 0 ? familyNamed("other") : found;
}
