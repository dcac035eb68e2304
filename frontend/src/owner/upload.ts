/*
 * Puts a checkpoint into the canister: hashed here, sent in chunks, committed, set up. What has arrived
 * of the same files before is not sent again. The model that runs answers until the new one is set up.
 */
import { sha256 } from "@noble/hashes/sha2.js";
import type { FileKind, Stretch } from "@/bindings/model.did";
import { toHex } from "@/lib/config";
import { checked, type Connection } from "@/lib/connection";

export type Kind = "config" | "tokenizer" | "safetensors";
export type Chosen = Partial<Record<Kind, File>>;

export interface Step {
  name: "hash" | "send" | "setup";
  done: number;
  total: number;
  /** Bytes that an earlier upload had sent. */
  resumed: number;
}

export class UploadFault extends Error {}

const CHUNK = 1_900_000;
const AT_ONCE = 4;
const TRIES = 4;
const KINDS: Kind[] = ["config", "tokenizer", "safetensors"];

/** Which file is which, by their names. */
export function sorted(files: Iterable<File>): Chosen {
  const chosen: Chosen = {};
  for (const file of files) {
    if (file.name.endsWith(".safetensors")) chosen.safetensors = file;
    else if (file.name === "config.json") chosen.config = file;
    else if (file.name === "tokenizer.json") chosen.tokenizer = file;
  }
  return chosen;
}

/** What is missing of a model; null when it can be sent. */
export function fault(chosen: Chosen): string | null {
  if (chosen.safetensors === undefined) return "Choose the weights too: model.safetensors.";
  if (chosen.config === undefined) return "Choose config.json too.";
  return null;
}

export async function upload(
  connection: Connection,
  chosen: Chosen,
  precision: string | null,
  name: string | null,
  tell: (step: Step) => void,
  signal: AbortSignal,
): Promise<void> {
  const missing = fault(chosen);
  if (missing !== null) throw new UploadFault(missing);
  const { actor } = connection;
  const files = KINDS.flatMap((kind) => (chosen[kind] ? [{ kind, file: chosen[kind] }] : []));
  const total = files.reduce((sum, { file }) => sum + file.size, 0);

  let hashed = 0;
  const hashes = new Map<Kind, Uint8Array>();
  for (const { kind, file } of files) {
    hashes.set(
      kind,
      await hash(file, signal, (count) => tell({ name: "hash", done: (hashed += count), total, resumed: 0 })),
    );
  }

  const states = await actor.files();
  for (const kind of [...KINDS, "packed"] as const) {
    const state = kind === "packed" ? states.packed[0] : states[kind];
    // Of another upload; it must not become part of this model.
    if (state?.staged[0] && (kind === "packed" || !hashes.has(kind))) checked(await actor.discard(kindOf(kind)));
  }
  const progress: Step = { name: "send", done: 0, total, resumed: 0 };
  for (const { kind, file } of files) {
    const digest = hashes.get(kind) ?? new Uint8Array();
    const { staged, stored } = states[kind];
    if (stored && staged[0] && hexOf(staged[0].sha256) === hexOf(digest)) {
      progress.done += file.size;
      progress.resumed += file.size;
    } else {
      await send(connection, kind, file, digest, progress, tell, signal);
    }
    tell({ ...progress });
  }
  signal.throwIfAborted();
  checked(await actor.set_precision(precision === null ? [] : [precision]));
  await setUp(connection, total, tell);
  const isLive = async (kind: Kind) => {
    const live = (await actor.model_info()).source_sha256[kind][0];
    return live !== undefined && hexOf(live) === hexOf(hashes.get(kind));
  };
  if (chosen.tokenizer && !(await isLive("tokenizer"))) {
    const [wrong] = await actor.setup_tokenizer();
    if (wrong !== undefined) throw new UploadFault(wrong);
  }
  if (!(await isLive("safetensors"))) {
    throw new UploadFault("The canister runs another model than the one that was sent. Upload again.");
  }
  if (name !== null) checked(await actor.set_name([name]));
}

const hexOf = (bytes: Uint8Array | number[] | undefined): string => toHex(Uint8Array.from(bytes ?? []));

async function hash(file: File, signal: AbortSignal, tell: (count: number) => void): Promise<Uint8Array> {
  const digest = sha256.create();
  for (let start = 0; start < file.size; start += CHUNK) {
    signal.throwIfAborted();
    const part = new Uint8Array(await file.slice(start, start + CHUNK).arrayBuffer());
    digest.update(part);
    tell(part.length);
  }
  return digest.digest();
}

async function send(
  { actor }: Connection,
  kind: Kind,
  file: File,
  digest: Uint8Array,
  progress: Step,
  tell: (step: Step) => void,
  signal: AbortSignal,
): Promise<void> {
  const begun = checked(await actor.begin(kindOf(kind), BigInt(file.size), digest));
  const there = file.size - begun.missing.reduce((sum, { start, end }) => sum + Number(end - start), 0);
  progress.done += there;
  progress.resumed += there;
  tell({ ...progress });
  const todo = chunks(begun.missing);
  const work = async () => {
    for (let next = todo.shift(); next !== undefined; next = todo.shift()) {
      signal.throwIfAborted();
      const [start, end] = next;
      const part = new Uint8Array(await file.slice(start, end).arrayBuffer());
      await persistently(async () => checked(await actor.write(kindOf(kind), BigInt(start), part)), signal);
      progress.done += part.length;
      tell({ ...progress });
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  checked(await actor.commit(kindOf(kind), digest));
}

/** Stretches in pieces that fit a message. */
export function chunks(missing: Stretch[]): [number, number][] {
  const found: [number, number][] = [];
  for (const stretch of missing) {
    const end = Number(stretch.end);
    for (let start = Number(stretch.start); start < end; start += CHUNK) {
      found.push([start, Math.min(start + CHUNK, end)]);
    }
  }
  return found;
}

/** Tries again what broke on the way: a chunk that has arrived already changes nothing. */
async function persistently<T>(attempt: () => Promise<T>, signal: AbortSignal): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await attempt();
    } catch (error) {
      if (tries === TRIES || signal.aborted) throw error;
      await new Promise((resolve) => setTimeout(resolve, 500 * 2 ** tries));
    }
  }
}

async function setUp({ actor }: Connection, total: number, tell: (step: Step) => void): Promise<void> {
  tell({ name: "setup", done: 0, total, resumed: 0 });
  /** Tells of progress until the canister has a model, or `over` says so. */
  const watch = async (over: () => boolean) => {
    for (;;) {
      await new Promise((resolve) => setTimeout(resolve, 700));
      if (over()) return;
      const { setup } = await actor.model_info();
      if (!("setting_up" in setup)) return;
      const { done, total: all } = setup.setting_up;
      tell({ name: "setup", done: Number(done), total: Number(all), resumed: 0 });
    }
  };
  let ended = false;
  watch(() => ended).catch(() => undefined); // a failed look is no failed set-up
  try {
    const result = await actor.setup_model();
    if ("Err" in result) throw new UploadFault(result.Err);
  } catch (error) {
    // The call waits five minutes; a large model takes longer, and goes on.
    if (error instanceof UploadFault || !("setting_up" in (await actor.model_info()).setup)) throw error;
    await watch(() => false);
  } finally {
    ended = true;
  }
  tell({ name: "setup", done: total, total, resumed: 0 });
}

const kindOf = (kind: Kind | "packed"): FileKind => ({ [kind]: null }) as FileKind;
