// Building elements in one line each.

type Content = Node | string | null | undefined | false;

/** An element; of `attributes`, functions are listeners ("onclick") and what is false or undefined is left out. */
export function h<Name extends keyof HTMLElementTagNameMap>(
  name: Name,
  attributes: Record<string, unknown> = {},
  ...content: Content[]
): HTMLElementTagNameMap[Name] {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(key.slice(2), value as EventListener);
    else if (value !== undefined && value !== false) element.setAttribute(key, String(value));
  }
  element.append(...content.filter((part): part is Node | string => !!part));
  return element;
}

export function button(label: string, onclick: () => void, title = ""): HTMLButtonElement {
  return h("button", { type: "button", onclick, title: title || undefined }, label);
}
