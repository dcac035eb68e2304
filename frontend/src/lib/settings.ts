/*
 * What can be chosen of a generation, and how it is written into Candid, into links and into the
 * browser's memory. docs/options.md says what each option does.
 */
import type { ModelInfo, Options } from "@/bindings/model.did";

export interface Settings {
  length: number;
  temperature: number;
  /** Only the N likeliest tokens; null for all. */
  topN: number | null;
  topP: number;
  repetitionPenalty: number;
  /** A 64-bit number as text; empty to have one drawn. */
  seed: string;
  /** One a line. */
  stop: string;
}

export const LIMITS = {
  length: { min: 1, max: 1000 },
  temperature: { min: 0, max: 1 },
  topN: { min: 1, max: 100_000 },
  topP: { min: 0.05, max: 1 },
  repetitionPenalty: { min: 1, max: 2 },
} as const;
export const MAX_PROMPT = 20_000;
const MAX_SEED = 2n ** 64n - 1n;
const CHARACTERS = 300; // a vocabulary as small as this one is of letters

export const isChat = (info: ModelInfo): boolean => info.template.length > 0;
export const isCharacters = (info: ModelInfo): boolean =>
  (info.architecture[0]?.vocab_size ?? Infinity) < CHARACTERS;

/** What a model is asked with when nobody chose otherwise. */
export function defaults(info: ModelInfo | null): Settings {
  const chat = info !== null && isChat(info);
  return {
    length: info !== null && isCharacters(info) ? 300 : 100,
    temperature: chat ? 0.2 : 0.7,
    topN: null,
    topP: 1,
    repetitionPenalty: 1,
    seed: "",
    stop: "",
  };
}

/** How long an answer may be asked for: what the context holds, where it does not slide. */
export function longest(info: ModelInfo | null): number {
  const context = info?.architecture[0]?.n_ctx ?? LIMITS.length.max;
  return info?.context === "slide" ? LIMITS.length.max : Math.min(context, LIMITS.length.max);
}

export const stopTexts = (settings: Settings): string[] =>
  settings.stop.split("\n").filter((line) => line !== "");

/** Why a seed can't be one; null when it can. */
export function seedFault(seed: string): string | null {
  if (seed.trim() === "") return null;
  const valid = /^\d{1,20}$/.test(seed.trim()) && BigInt(seed.trim()) <= MAX_SEED;
  return valid ? null : "A seed is a whole number from 0 to 18446744073709551615.";
}

/** Why the stop texts can't be used; null when they can. */
export function stopFault(settings: Settings): string | null {
  const texts = stopTexts(settings);
  if (texts.length > 16) return "At most 16 stop texts, one a line.";
  const long = texts.some((one) => new TextEncoder().encode(one).length > 256);
  return long ? "A stop text has at most 256 bytes." : null;
}

/** The options that were chosen; the others are the canister's defaults. */
export function toOptions(settings: Settings): Partial<Options> {
  const seed = settings.seed.trim();
  const stop = stopTexts(settings);
  return {
    max_new_tokens: [settings.length],
    temperature: [settings.temperature],
    ...(settings.topN !== null && { top_k: [settings.topN] }),
    ...(settings.topP < 1 && { top_p: [settings.topP] }),
    ...(settings.repetitionPenalty !== 1 && { repetition_penalty: [settings.repetitionPenalty] }),
    ...(stop.length > 0 && { stop: [stop] }),
    ...(seed !== "" && { seed: [BigInt(seed)] }),
  };
}

// --- Links: #prompt=…&length=…

const NAMES = {
  length: "length",
  temperature: "temperature",
  topP: "top_p",
  repetitionPenalty: "penalty",
} as const;

/** The part of a link behind "#" that carries a prompt and all settings. */
export function toFragment(prompt: string, settings: Settings): string {
  const fields = new URLSearchParams({ prompt });
  for (const [key, name] of Object.entries(NAMES)) {
    fields.set(name, String(settings[key as keyof typeof NAMES]));
  }
  if (settings.topN !== null) fields.set("top_n", String(settings.topN));
  if (settings.seed !== "") fields.set("seed", settings.seed);
  if (settings.stop !== "") fields.set("stop", settings.stop);
  return fields.toString();
}

/** What a link carries; what makes no sense in it is left out. */
export function fromFragment(fragment: string): { prompt: string; settings: Partial<Settings> } | null {
  const fields = new URLSearchParams(fragment.replace(/^#/, ""));
  const prompt = fields.get("prompt");
  if (prompt === null) return null;
  const settings: Partial<Settings> = {};
  for (const [key, name] of Object.entries(NAMES) as [keyof typeof NAMES, string][]) {
    const value = within(fields.get(name), LIMITS[key]);
    if (value !== null) settings[key] = key === "length" ? Math.round(value) : value;
  }
  const topN = within(fields.get("top_n"), LIMITS.topN);
  settings.topN = topN === null ? null : Math.round(topN);
  const seed = fields.get("seed") ?? "";
  settings.seed = seedFault(seed) === null ? seed.trim() : "";
  const stop = fields.get("stop") ?? "";
  settings.stop = stopFault({ ...defaults(null), stop }) === null ? stop : "";
  return { prompt: prompt.slice(0, MAX_PROMPT), settings };
}

function within(given: string | null, limits: { min: number; max: number }): number | null {
  if (given === null || given.trim() === "") return null;
  const value = Number(given);
  return value >= limits.min && value <= limits.max ? value : null;
}
