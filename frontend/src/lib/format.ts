/* Numbers and dates as the page writes them. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

export const count = (value: number): string => whole.format(value);

const SCALES: [number, string][] = [
  [1e12, "trillion"],
  [1e9, "billion"],
  [1e6, "million"],
  [1e3, "thousand"],
];

/** 2650000 as "2.65 million". */
export function large(value: number): string {
  const scale = SCALES.find(([size]) => value >= size);
  return scale === undefined ? whole.format(value) : `${short.format(value / scale[0])} ${scale[1]}`;
}

export function bytes(value: number): string {
  const units = ["bytes", "KB", "MB", "GB"];
  let unit = 0;
  for (; value >= 1000 && unit < units.length - 1; unit += 1) value /= 1000;
  return `${short.format(value)} ${units[unit] ?? ""}`;
}

export const rate = (tokens: number, seconds: number): string =>
  seconds > 0 ? short.format(tokens / seconds) : "–";

/** The middle of a long name, hidden. */
export const brief = (text: string, kept = 8): string =>
  text.length <= 2 * kept + 1 ? text : `${text.slice(0, kept)}…${text.slice(-kept)}`;

/*
 * What a generation costs at the prices of a 13-node subnet: a message 5 M cycles, a call 1.2 M and
 * 2,000 a byte, an instruction one cycle. A message of a job does up to 4 billion instructions.
 */
export function cycles(instructions: number, promptBytes: number): number {
  const messages = 2 + Math.ceil(instructions / 4e9);
  return 1_200_000 + 2_000 * (350 + promptBytes) + messages * 5_000_000 + instructions;
}
