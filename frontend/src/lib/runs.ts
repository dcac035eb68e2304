/*
 * A run: one prompt and what the model wrote for it. Ended runs are kept in the browser, the newest
 * fifty of them; nothing of them is sent anywhere.
 */
import type { Turn } from "@/lib/conversation";
import type { EvidenceJson } from "@/receipt/document";
import type { Settings } from "@/lib/settings";
import type { Trouble } from "@/lib/trouble";

export interface Run {
  id: string;
  /** The canister that was asked. */
  canister: string;
  prompt: string;
  settings: Settings;
  /** The prompt was put into the model's template. */
  chat: boolean;
  state: "asking" | "writing" | "ended";
  text: string;
  tokens: number;
  promptTokens: number;
  instructions: number;
  seconds: number;
  finish: string | null;
  seed: string | null;
  /** Hexadecimal id of the job, and what proves that it was asked for. */
  job: string | null;
  asked: EvidenceJson | null;
  /** What a later turn of the conversation carries of this one. */
  turn: Turn | null;
  trouble: Trouble | null;
}

const KEY = "icgpt.runs";
const KEPT = 50;

export function newRun(canister: string, prompt: string, settings: Settings, chat: boolean): Run {
  return {
    id: crypto.randomUUID(),
    canister,
    prompt,
    settings,
    chat,
    state: "asking",
    text: "",
    tokens: 0,
    promptTokens: 0,
    instructions: 0,
    seconds: 0,
    finish: null,
    seed: null,
    job: null,
    asked: null,
    turn: null,
    trouble: null,
  };
}

export const isRunning = (run: Run): boolean => run.state !== "ended";

/** Runs of earlier visits, the oldest first. */
export function readRuns(canister: string): Run[] {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return Array.isArray(kept) ? kept.filter((one): one is Run => isRun(one) && one.canister === canister) : [];
  } catch {
    return [];
  }
}

export function keepRuns(runs: Run[]): void {
  const ended = runs.filter((run) => !isRunning(run)).slice(-KEPT);
  try {
    localStorage.setItem(KEY, JSON.stringify(ended));
  } catch {
    // A full or closed storage: the runs stay on the page until it is left.
  }
}

function isRun(value: unknown): value is Run {
  if (typeof value !== "object" || value === null) return false;
  const run = value as Record<string, unknown>;
  const texts = ["id", "canister", "prompt", "text"].every((name) => typeof run[name] === "string");
  const numbers = ["tokens", "promptTokens", "instructions", "seconds"].every(
    (name) => typeof run[name] === "number",
  );
  return texts && numbers && run["state"] === "ended" && typeof run["settings"] === "object";
}
