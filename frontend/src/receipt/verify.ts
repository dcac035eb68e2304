/*
 * Checks a receipt in the browser: the same file and the same checks as `icgpt verify`, against a
 * root key that the page knows from elsewhere. docs/receipts.md says what a receipt proves.
 */
import {
  Cbor,
  Certificate,
  lookup_path,
  LookupPathStatus,
  reconstruct,
  requestIdOf,
  type HashTree,
} from "@icp-sdk/core/agent";
import { IDL, lebDecode, PipeArrayBuffer } from "@icp-sdk/core/candid";
import { Principal } from "@icp-sdk/core/principal";
import { sha256 } from "@noble/hashes/sha2.js";
import type { Finish, Options, PollResult, Progress, Prompt, Receipt, SubmitResult } from "@/bindings/model.did";
import { fromHex, toHex } from "@/lib/config";
import { argumentType, decoded, decodedArguments, finishName } from "@/lib/connection";
import { canonical, Float, type EvidenceJson, type Json } from "@/receipt/document";
import type { Kept } from "@/receipt/file";
import { shown } from "@/receipt/shown";

export class NotProven extends Error {}

/** What a receipt proves, for people. */
export interface Proven {
  prompt: string | number[];
  text: string | null;
  finish: string;
  seed: bigint;
  tokens: number;
  model: string;
  moduleHash: string;
  caller: string;
  canister: string;
  askedAt: string;
  answeredAt: string;
  /** As `shows` of the file has it. */
  shown: Json;
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);
const OPTIONS = argumentType("submit", 1);
const FINISH = IDL.Variant({
  stop: IDL.Null,
  length: IDL.Null,
  context: IDL.Null,
  cancelled: IDL.Null,
  failed: IDL.Text,
});
const RECEIPT = IDL.Record({
  prompt: IDL.Vec(IDL.Nat32),
  options: OPTIONS,
  seed: IDL.Nat64,
  model: IDL.Vec(IDL.Nat8),
  token_ids: IDL.Vec(IDL.Nat32),
  finish: FINISH,
  sequences: IDL.Opt(
    IDL.Vec(IDL.Record({ token_ids: IDL.Vec(IDL.Nat32), finish: FINISH, score: IDL.Opt(IDL.Float32) })),
  ),
});

/** What is proven under a root key; NotProven unless all of it holds. */
export async function verify(kept: Kept, rootKey: Uint8Array): Promise<Proven> {
  const canister = Principal.fromText(kept.canister);
  const read = (bytes: string) => certificate(bytes, canister, rootKey);
  const asked = call(kept.asked, "submit", canister, await read(kept.asked.certificate));
  const answered = call(kept.answered, "poll", canister, await read(kept.answered.certificate));
  const proof = await read(kept.proof.certificate);
  const receipt = await jobReceipt(kept, canister, proof);

  const [prompt, options] = decodedArguments("submit", fromHex(kept.asked.arg)) as [Prompt, Options];
  expect(toHex(okOf(decoded("submit", asked.reply) as SubmitResult)) === kept.job, "another job was asked for");
  expect(same(options, receipt.options), "the job's options are not those that were asked for");
  expect([undefined, receipt.seed].includes(options.seed[0]), "the seed is not the one asked for");
  const ids = "token_ids" in prompt ? Array.from(prompt.token_ids) : [];
  expect(within(ids, Array.from(receipt.prompt)), "the job's prompt is not the one that was asked");

  const [job, start] = decodedArguments("poll", fromHex(kept.answered.arg)) as [Uint8Array, number];
  expect(toHex(job) === kept.job && start === 0, "the text is that of another job, or a part of it");
  const told = okOf(decoded("poll", answered.reply) as PollResult);
  const written = Array.from(receipt.token_ids);
  const all = Array.from(told.token_ids);
  const echoed = all.slice(0, Math.max(0, all.length - written.length));
  const finish = told.finish[0] === undefined ? null : finishName(told.finish[0]);
  expect(
    same(all, [...echoed, ...written]) &&
      (options.echo[0] === true ? within(echoed, Array.from(receipt.prompt)) : echoed.length === 0) &&
      finish === finishName(receipt.finish) &&
      told.seed === receipt.seed,
    "the text belongs to another answer",
  );
  const sequences = answers(told, receipt, echoed);
  expect(
    asked.moduleHash === answered.moduleHash && asked.installed === answered.installed,
    "the canister's code was changed while it answered",
  );
  const times = [asked.installed ?? 0n, asked.time, timeOf(proof), answered.time];
  expect(
    times.every((time, index) => index === 0 || (times[index - 1] ?? 0n) <= time),
    "the certificates are not in the order of what they show",
  );

  const sender = Principal.fromUint8Array(fromHex(kept.asked.sender)).toText();
  const proven: Proven = {
    prompt: "text" in prompt ? prompt.text : ids,
    text: told.text[0] ?? null,
    finish: finishName(receipt.finish),
    seed: receipt.seed,
    tokens: written.length,
    model: toHex(Uint8Array.from(receipt.model)),
    moduleHash: asked.moduleHash,
    caller: sender,
    canister: kept.canister,
    askedAt: timeText(asked.time),
    answeredAt: timeText(answered.time),
    shown: null,
  };
  proven.shown = {
    prompt: typeof proven.prompt === "string" ? proven.prompt : proven.prompt.map(BigInt),
    text: proven.text,
    finish: proven.finish,
    options: shown(OPTIONS, options),
    seed: proven.seed,
    prompt_ids: Array.from(receipt.prompt, BigInt),
    token_ids: written.map(BigInt),
    model: proven.model,
    module_hash: proven.moduleHash,
    installed_at: asked.installed === null ? null : timeText(asked.installed),
    caller: proven.caller,
    asked_at: proven.askedAt,
    answered_at: proven.answeredAt,
    ...(sequences === null ? {} : { sequences }),
  };
  expect(
    kept.shows === null || canonical(kept.shows) === canonical(proven.shown),
    "what the receipt shows is not what it proves",
  );
  return proven;
}

// --- Parts of the proof

interface Shown {
  reply: Uint8Array;
  moduleHash: string;
  installed: bigint | null;
  time: bigint;
}

async function certificate(hex: string, canister: Principal, rootKey: Uint8Array): Promise<Certificate> {
  try {
    return await Certificate.create({
      certificate: fromHex(hex),
      rootKey,
      principal: { canisterId: canister },
      disableTimeVerification: true, // it was kept, so it may be of any time
    });
  } catch {
    throw new NotProven("a certificate's signature does not hold under this network's root key");
  }
}

function call(kept: EvidenceJson, method: string, canister: Principal, proof: Certificate): Shown {
  const id = requestIdOf({
    request_type: "call",
    canister_id: canister.toUint8Array(),
    method_name: method,
    arg: fromHex(kept.arg),
    sender: fromHex(kept.sender),
    ingress_expiry: BigInt(kept.ingress_expiry),
    nonce: fromHex(kept.nonce),
  });
  const status = [utf8("request_status"), id];
  const about = [utf8("canister"), canister.toUint8Array()];
  const state = valueAt(proof, [...status, utf8("status")]);
  const reply = valueAt(proof, [...status, utf8("reply")]);
  const module = valueAt(proof, [...about, utf8("module_hash")]);
  if (state === null || new TextDecoder().decode(state) !== "replied" || reply === null || module === null) {
    throw new NotProven(`the certificate does not show this call of '${method}'`);
  }
  const installed = valueAt(proof, [...about, utf8("last_install_timestamp")]);
  return {
    reply,
    moduleHash: toHex(module),
    installed: installed === null ? null : number(installed),
    time: timeOf(proof),
  };
}

async function jobReceipt(kept: Kept, canister: Principal, proof: Certificate): Promise<Receipt> {
  const certified = valueAt(proof, [utf8("canister"), canister.toUint8Array(), utf8("certified_data")]);
  const witness = Cbor.decode<HashTree>(fromHex(kept.proof.witness));
  expect(
    certified !== null && toHex(await reconstruct(witness)) === toHex(certified),
    "the job's witness is not what the subnet certified",
  );
  const leaf = lookup_path([utf8("jobs"), fromHex(kept.job)], witness);
  const bytes = fromHex(kept.proof.receipt);
  if (leaf.status !== LookupPathStatus.Found) throw new NotProven("the witness has no such job");
  expect(toHex(leaf.value) === toHex(sha256(bytes)), "the receipt is not the certified one");
  return IDL.decode([RECEIPT], bytes)[0] as unknown as Receipt;
}

function valueAt(proof: Certificate, path: Uint8Array[]): Uint8Array | null {
  const found = proof.lookup_path(path);
  return found.status === LookupPathStatus.Found ? found.value : null;
}

function timeOf(proof: Certificate): bigint {
  const found = valueAt(proof, [utf8("time")]);
  if (found === null) throw new NotProven("the certificate has no time");
  return number(found);
}

const number = (leb: Uint8Array): bigint => lebDecode(new PipeArrayBuffer(leb));

const timeText = (nanoseconds: bigint): string =>
  `${new Date(Number(nanoseconds / 1_000_000n)).toISOString().slice(0, 19)}Z`;

function okOf<T>(result: { Ok: T } | { Err: string }): T {
  if ("Err" in result) throw new NotProven("the canister refused the call");
  return result.Ok;
}

function expect(holds: boolean, otherwise: string): asserts holds {
  if (!holds) throw new NotProven(otherwise);
}

/** Whether two values in Candid are equal. */
const same = (one: unknown, other: unknown): boolean => plain(one) === plain(other);
const plain = (value: unknown): string =>
  JSON.stringify(value, (_, part: unknown) => {
    if (typeof part === "bigint") return `${part}n`;
    if (ArrayBuffer.isView(part)) return Array.from(part as unknown as number[]);
    const fields = typeof part === "object" && part !== null && !Array.isArray(part);
    return fields ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1))) : part;
  });

/** Whether a list stands in another one as it is. */
function within(part: number[], whole: number[]): boolean {
  // As texts, because searching in those takes no longer when a stranger chose the lists.
  return `,${whole.join(",")},`.includes(part.length === 0 ? "," : `,${part.join(",")},`);
}

// --- Several answers

/** All of several answers with their texts, which must be those of the receipt; null where there is one. */
function answers(told: Progress, receipt: Receipt, echoed: number[]): Json[] | null {
  const [shown, proven] = [told.sequences[0], receipt.sequences[0]];
  if (shown === undefined || proven === undefined) {
    expect(shown === proven, "the texts belong to other answers");
    return null;
  }
  const plainly = (ids: Iterable<number>, finish: Finish, score: [] | [number]) => [[...ids], finish, score];
  expect(
    same(
      shown.map((one) => plainly(one.token_ids, one.finish, one.score)),
      proven.map((one) => plainly([...echoed, ...one.token_ids], one.finish, one.score)),
    ),
    "the texts belong to other answers",
  );
  return proven.map((one, index) => ({
    text: shown[index]?.text[0] ?? null,
    token_ids: Array.from(one.token_ids, BigInt),
    finish: finishName(one.finish),
    score: one.score[0] === undefined ? null : new Float(one.score[0]),
  }));
}
