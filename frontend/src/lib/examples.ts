/* Prompts to begin with, by what the model has learnt. */
import type { ModelInfo } from "@/bindings/model.did";
import { isCharacters, isChat } from "@/lib/settings";

const PLAY = ["ROMEO:", "JULIET:\nO gentle ", "First Citizen:\n", "To be, or not to be"];
const INSTRUCTIONS = [
  "What is the capital of France?",
  "Give three tips for staying healthy.",
  "Explain what a canister is to a child.",
  "Write a short poem about the sea.",
];
const BEGINNINGS = [
  "Once upon a time,",
  "The secret of good bread is",
  "Dear diary, today",
  "In a letter found behind the wall,",
];

export function examples(info: ModelInfo): string[] {
  if (isChat(info)) return INSTRUCTIONS;
  return isCharacters(info) ? PLAY : BEGINNINGS;
}

export const label = (example: string): string => example.replace(/\s+/g, " ").trim();
