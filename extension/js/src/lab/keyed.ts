// A list whose elements stay while their items do, so that an update takes neither focus nor tooltips away.

export interface Row<Item> {
  readonly element: HTMLElement;
  update(item: Item): void;
}

export class KeyedList<Item> {
  private rows = new Map<string, Row<Item>>();

  constructor(
    private readonly parent: HTMLElement,
    private readonly keyOf: (item: Item) => string,
    private readonly make: (item: Item) => Row<Item>,
  ) {}

  update(items: Item[]): void {
    const before = this.rows;
    this.rows = new Map(items.map((item) => [this.keyOf(item), before.get(this.keyOf(item)) ?? this.make(item)]));
    for (const [key, row] of before) if (!this.rows.has(key)) row.element.remove();
    items.forEach((item, index) => {
      const row = this.rows.get(this.keyOf(item))!;
      row.update(item);
      // An element that is where it belongs is not moved: moving one takes its focus.
      const there = this.parent.children[index] ?? null;
      if (there !== row.element) this.parent.insertBefore(row.element, there);
    });
  }
}

/** Writes only what changed, so that a reader's selection stays. */
export function setText(element: HTMLElement, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
