/*
 * What went wrong, in words, and what to do about it. Errors of the agent are read by their shape,
 * so that this needs nothing of the agent, which is loaded late.
 */

export type TroubleKind =
  | "offline"
  | "unreachable"
  | "stopped"
  | "no-model"
  | "refused"
  | "busy"
  | "unproven"
  | "other";

export interface Trouble {
  kind: TroubleKind;
  title: string;
  advice: string;
}

const BY_CODE: Record<string, [TroubleKind, string, string]> = {
  IC0207: ["refused", "The canister is out of cycles.", "Its owner can top it up."],
  IC0301: ["no-model", "There is no such canister.", "It may have been deleted. Check the page's address."],
  IC0305: ["no-model", "There is no such canister.", "It may have been deleted. Check the page's address."],
  IC0508: ["stopped", "The canister is stopped.", "Its owner can start it again. The page looks every few seconds."],
  IC0509: ["stopped", "The canister is being stopped.", "Its owner can start it again. The page looks every few seconds."],
  IC0512: ["refused", "Only a controller of the canister may do this.", "Sign in as one."],
  IC0536: ["refused", "The canister runs other code than this page expects.", "Deploy both again: icgpt deploy"],
  IC0537: ["no-model", "The canister has no code yet.", "Install it: icgpt deploy"],
};

const BY_WORDS: [RegExp, TroubleKind, string][] = [
  [/no model is set up/, "no-model", "Its owner can upload one, here or with: icgpt upload"],
  [/no tokenizer is set up/, "no-model", "Its owner can upload one with the model."],
  [/may not use this model/, "refused", "Sign in as somebody who may, or ask a manager to add you."],
  [/is not a manager/, "refused", "Sign in as a manager, or ask one to add you."],
  [/of today's quota/, "refused", "Ask for a shorter text, or come back tomorrow (UTC)."],
  [/jobs|queue|busy/i, "busy", "Wait a moment, then try again."],
  [/prompt|context|token/i, "refused", "Change the prompt or the length, then try again."],
];

/** The trouble that an error is. */
export function troubleOf(error: unknown): Trouble {
  if (isTrouble(error)) return error;
  if (!navigator.onLine) return OFFLINE;
  const { words, code } = saidBy(error);
  const known = BY_CODE[code ?? /IC0\d{3}/.exec(words)?.[0] ?? ""];
  if (known !== undefined) return { kind: known[0], title: known[1], advice: known[2] };
  if (/verif|certificate|signature/i.test(words)) {
    return {
      kind: "unproven",
      title: "The answer could not be verified, so it was not used.",
      advice: "Check this machine's clock, then try again.",
    };
  }
  if (/fetch|network|connect|HTTP|50[234]/i.test(words) && code === undefined) return UNREACHABLE;
  const told = BY_WORDS.find(([pattern]) => pattern.test(words));
  return { kind: told?.[1] ?? "other", title: sentence(words), advice: told?.[2] ?? "Try again." };
}

export const OFFLINE: Trouble = {
  kind: "offline",
  title: "You are offline.",
  advice: "What is on the page stays. Writing goes on when the connection is back.",
};
export const UNREACHABLE: Trouble = {
  kind: "unreachable",
  title: "The network does not answer.",
  advice: "Check the connection. A local network is started with: icgpt network start",
};

/** A refusal in the canister's own words. */
export class Refused extends Error {}

function saidBy(error: unknown): { words: string; code: string | undefined } {
  if (!(error instanceof Error)) return { words: String(error), code: undefined };
  const inner = (error as { code?: { rejectMessage?: unknown; rejectErrorCode?: unknown } }).code;
  const message = typeof inner?.rejectMessage === "string" ? inner.rejectMessage : error.message;
  const code = typeof inner?.rejectErrorCode === "string" ? inner.rejectErrorCode : undefined;
  return { words: ownWords(message), code };
}

/** What the canister said, without the platform's frame round it. */
function ownWords(message: string): string {
  const short = message.slice(0, 10_000);
  const framed =
    /with message: '([\s\S]*?)'\.?\s*(?:Consider gracefully|$)/.exec(short) ??
    /[Cc]anister trapped explicitly: ([\s\S]*)/.exec(short);
  return framed?.[1] ?? short;
}

function sentence(words: string): string {
  const short = words.trim().slice(0, 400);
  const begun = short.charAt(0).toUpperCase() + short.slice(1);
  return /[.!?…]$/.test(begun) ? begun : `${begun}.`;
}

function isTrouble(value: unknown): value is Trouble {
  return typeof value === "object" && value !== null && "kind" in value && "advice" in value;
}
