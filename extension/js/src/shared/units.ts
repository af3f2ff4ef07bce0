// Times and sizes as people read them.

/** A duration in microseconds with three figures and the unit that fits: "12.3 ms". */
export function duration(us: number): string {
  const size = Math.abs(us);
  if (size >= 1e6) return `${figures(us / 1e6)} s`;
  if (size >= 1e3) return `${figures(us / 1e3)} ms`;
  if (size >= 1 || size === 0) return `${figures(us)} \u00b5s`;
  return `${figures(us * 1e3)} ns`;
}

/** Three figures at most, without an exponent. */
export function figures(value: number): string {
  const size = Math.abs(value);
  if (size === 0) return "0";
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2);
}

export function percent(part: number): string {
  const value = part * 100;
  return `${value > 0 && value < 9.95 ? value.toFixed(1) : value.toFixed(0)} %`;
}

export function bytes(count: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (Math.abs(count) >= 1024 && unit < units.length - 1) {
    count /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? count : figures(count)} ${units[unit]}`;
}

export function count(value: number): string {
  return value.toLocaleString("en-US");
}

/** "1 request", "2 requests". */
export function plural(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : noun.endsWith("ch") ? "es" : "s"}`;
}

/** The distance of ticks, at least `minimum` microseconds: 1, 2 or 5 times a power of ten. */
export function tickStep(minimum: number): number {
  const power = 10 ** Math.floor(Math.log10(minimum));
  for (const factor of [1, 2, 5]) if (factor * power >= minimum) return factor * power;
  return 10 * power;
}

/** The label of a tick, with as many decimals as the step needs. */
export function tick(us: number, step: number): string {
  const [unit, divisor] = step >= 1e5 ? ["s", 1e6] : step >= 100 ? ["ms", 1e3] : ["\u00b5s", 1];
  const decimals = Math.max(0, -Math.floor(Math.log10(step / divisor) + 1e-9));
  return `${(us / divisor).toFixed(decimals)} ${unit}`;
}
