/* What the canister tells of itself in /metrics: lines of a name and a number, as Prometheus reads them. */

/** By name, without what all names begin with; labels are part of a name. */
export type Figures = Readonly<Record<string, number>>;

const LINE = /^icgpt_(\w+(?:\{[^\n]*\})?) (\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/gm;

export function parsed(text: string): Figures {
  const found: Record<string, number> = {};
  for (const [, name, value] of text.matchAll(LINE)) {
    if (name !== undefined) found[name] = Number(value);
  }
  return found;
}

/** All memory that the canister has; null when it did not say. */
export function memoryOf({ heap_bytes: heap, stable_bytes: stable }: Figures): number | null {
  return heap === undefined || stable === undefined ? null : heap + stable;
}
