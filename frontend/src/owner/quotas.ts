/* Quotas as a form has them: numbers as text, an empty one for no limit. */
import type { Quotas } from "@/bindings/model.did";

export const FIELDS = [
  ["public_tokens_per_day", "Tokens a day, all visitors together", "no limit"],
  ["public_jobs", "Jobs at once, all visitors together", ""],
  ["user_tokens_per_day", "Tokens a day, each user", "no limit"],
  ["user_jobs", "Jobs at once, each user", ""],
  ["queue", "Jobs that may wait", ""],
  ["cycles_floor", "Cycles below which no new work is taken", ""],
] as const;

export type Name = (typeof FIELDS)[number][0];
export type Form = Record<Name, string>;

export function toForm(quotas: Quotas): Form {
  return {
    public_tokens_per_day: quotas.public_tokens_per_day[0]?.toString() ?? "",
    public_jobs: String(quotas.public_jobs),
    user_tokens_per_day: quotas.user_tokens_per_day[0]?.toString() ?? "",
    user_jobs: String(quotas.user_jobs),
    queue: String(quotas.queue),
    cycles_floor: quotas.cycles_floor.toString(),
  };
}

/** What is wrong with a form; null when it can be sent. */
export function fault(form: Form): string | null {
  for (const [name, label, empty] of FIELDS) {
    const text = form[name].trim();
    if (text === "" && empty !== "") continue;
    const bits = name.endsWith("per_day") || name === "cycles_floor" ? 64n : 32n;
    if (!/^\d{1,20}$/.test(text) || BigInt(text) >= 2n ** bits) return `${label}: a whole number.`;
  }
  return null;
}

export function toQuotas(form: Form): Quotas {
  const perDay = (text: string): [] | [bigint] => (text.trim() === "" ? [] : [BigInt(text)]);
  return {
    public_tokens_per_day: perDay(form.public_tokens_per_day),
    public_jobs: Number(form.public_jobs),
    user_tokens_per_day: perDay(form.user_tokens_per_day),
    user_jobs: Number(form.user_jobs),
    queue: Number(form.queue),
    cycles_floor: BigInt(form.cycles_floor),
  };
}
