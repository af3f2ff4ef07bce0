// Which family an event belongs to: it says the colour, so that the kind of work is seen before any name is read.

import type { Header } from "./model";

export const FAMILIES = [
  "batch",
  "matmul",
  "attention",
  "norm",
  "elementwise",
  "copy",
  "launch",
  "sync",
  "python",
  "other",
] as const;

export type Family = (typeof FAMILIES)[number];

export const FAMILY_LABELS: Record<Family, string> = {
  batch: "batch",
  matmul: "matrix products, convolutions",
  attention: "attention",
  norm: "norms, softmax, sums",
  elementwise: "elementwise",
  copy: "copies, layout",
  launch: "launches",
  sync: "waiting for the GPU",
  python: "Python",
  other: "other",
};

const PATTERNS: [RegExp, Family][] = [
  [/^nbserve\.batch/, "batch"],
  [/synchronize|\bitem\b|_local_scalar_dense|StreamWaitEvent/i, "sync"],
  [/attention|flash|sdpa|fmha/i, "attention"],
  [/^(cuda|cu|hip)[A-Z]\w*(Launch|Graph)/, "launch"],
  [/memcpy|memset|copy|::to$|::_to|contiguous|clone|::cat|::stack|transpose|permute|reshape|view|::t$|expand|as_strided|slice|select|index|embedding|gather|empty|resize/i, "copy"],
  [/mm\b|matmul|linear|conv|gemm|bmm|einsum|cutlass|cublas|mkldnn|wgmma|xmma|addmv|::mv$|::dot$/i, "matmul"],
  [/norm|softmax|reduce|::sum|mean|::max|::min|argmax|pool|welford|topk|sort/i, "norm"],
  [/elementwise|add|mul|sub|div|relu|gelu|silu|sigmoid|tanh|exp|pow|sqrt|dropout|clamp|where|fill|zero|ones|triton|neg|::gt|::lt|::eq/i, "elementwise"],
];

/** The family, as an index into FAMILIES, of each name; a category that says more than the name goes first. */
export function familiesOf(header: Header): { ofName: Uint8Array; ofCategory: Int8Array } {
  const ofName = Uint8Array.from(header.names, (name) => FAMILIES.indexOf(byName(name)));
  const ofCategory = Int8Array.from(header.categories, (category) =>
    category === "python" ? FAMILIES.indexOf("python") : category === "overhead" ? FAMILIES.indexOf("other") : -1,
  );
  return { ofName, ofCategory };
}

function byName(name: string): Family {
  for (const [pattern, family] of PATTERNS) if (pattern.test(name)) return family;
  return "other";
}
