/*
 * A conversation with a model that has a template: each turn goes into the template by itself, and a
 * request carries the turns before it as token ids, so that the canister finds what it has computed
 * already. When the context is full, the oldest turns are left out. The same as `icgpt chat`.
 */
import type { Template } from "@/bindings/model.did";

/** What was asked, within the template, and what was answered, up to its end token. */
export interface Turn {
  own: number[];
  answer: number[];
}

/** A question within the template. */
export const inTemplate = (ids: Iterable<number>, template: Template): number[] => [
  ...template.prefix,
  ...ids,
  ...template.suffix,
];

/** The turns, of those before, that a request for an answer of this length has room for. */
export function remembered(before: Turn[], own: number[], longest: number, context: number): Turn[] {
  const room = Math.min(longest, Math.floor(context / 2));
  let whole = own.length + before.reduce((sum, { own: asked, answer }) => sum + asked.length + answer.length, 0);
  let left = 0;
  for (const turn of before) {
    if (whole + room <= context) break;
    whole -= turn.own.length + turn.answer.length;
    left += 1;
  }
  return before.slice(left);
}

export const idsOf = (turns: Turn[], own: number[]): number[] => [
  ...turns.flatMap(({ own: asked, answer }) => [...asked, ...answer]),
  ...own,
];

/** An answer's ids as a later request carries them: they end as the model ends its answers. */
export function closed(ids: number[], template: Template): number[] {
  const [ending] = template.stop;
  const last = ids.at(-1);
  if (ending === undefined || (last !== undefined && template.stop.includes(last))) return ids;
  return [...ids, ending];
}
