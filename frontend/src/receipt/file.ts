/*
 * What the file of a receipt holds, by its form alone; what it proves is for `verify` to say. The file
 * is a stranger's, so its size is capped and nothing is taken for granted.
 */
import { Float, MAX_BYTES, parse, Unreadable, VERSION, type EvidenceJson, type Json } from "@/receipt/document";

/** What a receipt's file holds; nothing of it is believed before `verify`. */
export interface Kept {
  network: string;
  canister: string;
  job: string;
  asked: EvidenceJson;
  proof: ProofJson;
  answered: EvidenceJson;
  /** What the file says it shows; null before it was written. */
  shows: Json | null;
}
export interface ProofJson {
  certificate: string;
  witness: string;
  receipt: string;
}

/** A receipt from the text of its file. */
export function read(text: string): Kept {
  if (text.length > MAX_BYTES) throw new Unreadable("it has more than 16 MiB");
  const document = parse(text);
  if (!isRecord(document) || !("icgpt_receipt" in document)) throw new Unreadable("nothing in it says so");
  if (document["icgpt_receipt"] !== VERSION) throw new Unreadable("its form is not known to this page");
  const names = ["icgpt_receipt", "network", "canister", "job", "shows", "asked", "proof", "answered"];
  exactly(document, names, "the file");
  const shows = document["shows"] ?? null;
  if (!isRecord(shows)) throw new Unreadable("it shows nothing");
  return {
    network: textOf(document["network"]),
    canister: textOf(document["canister"]),
    job: hexOf(document["job"]),
    asked: evidence(document["asked"]),
    proof: hexes(document["proof"], ["certificate", "witness", "receipt"], "its proof"),
    answered: evidence(document["answered"]),
    shows,
  };
}

type Fields = Record<string, Json>;

const isRecord = (value: Json | undefined): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof Float);

function exactly(value: Json | undefined, names: string[], what: string): Fields {
  if (!isRecord(value) || Object.keys(value).sort().join() !== [...names].sort().join()) {
    throw new Unreadable(`${what} has other fields than a receipt's`);
  }
  return value;
}

function textOf(value: Json | undefined): string {
  if (typeof value !== "string") throw new Unreadable("its network or canister is no text");
  return value;
}

function hexOf(value: Json | undefined): string {
  if (typeof value !== "string" || value.length % 2 !== 0 || /[^0-9a-f]/.test(value)) {
    throw new Unreadable("a part of it is no hexadecimal number");
  }
  return value;
}

function hexes<Name extends string>(value: Json | undefined, names: Name[], what: string): Record<Name, string> {
  const fields = exactly(value, names, what);
  return Object.fromEntries(names.map((name) => [name, hexOf(fields[name])])) as Record<Name, string>;
}

function evidence(value: Json | undefined): EvidenceJson {
  const bytes = ["arg", "sender", "nonce", "certificate"] as const;
  const fields = exactly(value, [...bytes, "ingress_expiry"], "a call");
  const expiry = fields["ingress_expiry"];
  if (typeof expiry !== "bigint" || expiry < 0n || expiry >= 2n ** 64n) {
    throw new Unreadable("a call's expiry is no time");
  }
  const { arg, sender, nonce, certificate } = fields;
  return {
    ...hexes({ arg, sender, nonce, certificate } as Fields, [...bytes], "a call"),
    ingress_expiry: expiry.toString(),
  };
}
