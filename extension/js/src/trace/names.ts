// Names as they fit on a bar: without what all of them share.

/** "aten::linear" as "linear", and of a kernel's C++ name the function and what it computes. */
export function shortName(name: string): string {
  if (!name.includes("<") && !name.includes("(")) return name.replace(/^(aten|nbserve)(::|\.)/, "");
  if (!name.includes("::")) return name;
  const bare = name.replace(/^void /, "").replace(/[<(].*$/s, "").split("::").pop() || name;
  const computes = /(\w+?)_(?:kernel_cuda|kernel_impl|functor)|(\w+?)Functor/.exec(name);
  const what = computes?.[1] ?? computes?.[2];
  return what && !bare.includes(what) ? `${what} (${bare})` : bare;
}
