/*
 * The model canister over the agent, which verifies every answer. Loaded when the page has been
 * painted: all that needs the agent hangs on this module.
 */
import { Actor, AnonymousIdentity, Cbor, Certificate, HttpAgent, LookupPathStatus, type Identity } from "@icp-sdk/core/agent";
import { IDL } from "@icp-sdk/core/candid";
import { Principal } from "@icp-sdk/core/principal";
import { idlFactory, type _SERVICE, type ModelInfo, type Options, type Progress, type Prompt, type SubmitResult } from "@/bindings/model.did";
import { fromHex, toHex, type PageConfig } from "@/lib/config";
import { closed, idsOf, inTemplate, remembered, type Turn } from "@/lib/conversation";
import { sentOnLeaving } from "@/lib/farewell";
import { parsed, type Figures } from "@/lib/figures";
import { Refused } from "@/lib/trouble";
import { certifiedCall, type Asked } from "@/receipt/evidence";

const service = idlFactory({ IDL });
const FIRST_PAUSE = 80;
const LONGEST_PAUSE = 700;

export type Role = "controller" | "manager" | null;

export interface Piece {
  text: string;
  ids: number[];
  tokens: number;
  promptTokens: number;
  instructions: number;
  seed: string;
  /** Why it ended; null while it is written. */
  finish: string | null;
}

export class Connection {
  readonly canister: Principal;
  readonly caller: Principal;
  readonly actor: _SERVICE;

  private constructor(
    readonly config: PageConfig,
    readonly agent: HttpAgent,
    readonly rootKey: Uint8Array,
    readonly identity: Identity,
  ) {
    this.caller = identity.getPrincipal();
    this.canister = Principal.fromText(config.canister);
    this.actor = Actor.createActor<_SERVICE>(idlFactory, { agent, canisterId: this.canister });
  }

  static async open(config: PageConfig, identity: Identity = new AnonymousIdentity()): Promise<Connection> {
    const agent = HttpAgent.createSync({
      host: config.host,
      identity,
      ...(config.rootKey && { rootKey: config.rootKey }),
    });
    // Only a network on this machine may say itself which key it has.
    if (config.rootKey === null && isLoopback(config.host)) await agent.fetchRootKey();
    if (agent.rootKey === null) throw new Error("The network's root key is not known.");
    return new Connection(config, agent, agent.rootKey, identity);
  }

  info(): Promise<ModelInfo> {
    return this.actor.model_info();
  }

  /** What the caller may do beyond having the model write. */
  async role(): Promise<Role> {
    if (this.caller.isAnonymous()) return null;
    const path = [utf8("canister"), this.canister.toUint8Array(), utf8("controllers")];
    const [found, manager] = await Promise.all([
      this.certified(path),
      this.actor.is_principal_authorized(this.caller),
    ]);
    const controllers = found === null ? [] : Cbor.decode<Uint8Array[]>(found);
    if (controllers.some((one) => Principal.fromUint8Array(one).compareTo(this.caller) === "eq")) return "controller";
    return manager ? "manager" : null;
  }

  /** SHA-256 of the canister's code, certified by the subnet; null when it has none. */
  async moduleHash(): Promise<string | null> {
    const found = await this.certified([utf8("canister"), this.canister.toUint8Array(), utf8("module_hash")]);
    return found === null ? null : toHex(found);
  }

  /** What the canister tells of itself; callers who may not use the model are told less. */
  async figures(): Promise<Figures> {
    const asked = { method: "GET", url: "/metrics", headers: [], body: new Uint8Array(), certificate_version: [] as [] };
    const { status_code, body } = await this.actor.http_request(asked);
    return status_code === 200 ? parsed(new TextDecoder().decode(Uint8Array.from(body))) : {};
  }

  private async certified(path: Uint8Array[]): Promise<Uint8Array | null> {
    const { certificate } = await this.agent.readState(this.canister, { paths: [path] });
    const proof = await Certificate.create({
      certificate,
      rootKey: this.rootKey,
      principal: { canisterId: this.canister },
      agent: this.agent,
    });
    const found = proof.lookup_path(path);
    return found.status === LookupPathStatus.Found ? found.value : null;
  }

  /** Begins a job; what proves that it was asked for is read along the way. */
  async submit(prompt: Prompt, options: Partial<Options>): Promise<Asked> {
    const arg = encoded("submit", [prompt, { ...noOptions(), ...options }]);
    const { reply, evidence } = await certifiedCall(this, "submit", arg);
    const job = checked(decoded("submit", reply) as SubmitResult);
    return { job: toHex(job), evidence };
  }

  /** Begins the job of the next turn of a conversation; what the turn itself asks comes with it. */
  async say(text: string, options: Partial<Options>, before: Turn[], info: ModelInfo): Promise<Asked & { own: number[] }> {
    const [template] = info.template;
    const [shape] = info.architecture;
    if (template === undefined || shape === undefined) throw new Refused("The model has no template.");
    const own = inTemplate(checked(await this.actor.tokenize(text)).token_ids, template);
    const turns = remembered(before, own, options.max_new_tokens?.[0] ?? shape.n_ctx, shape.n_ctx);
    // A first question goes as a text, which a receipt then shows.
    const asked = await (turns.length === 0
      ? this.submit({ text }, options)
      : this.submit({ token_ids: Uint32Array.from(idsOf(turns, own)) }, { ...options, template: [false] }));
    return { ...asked, own };
  }

  /** An answer's ids as the next turn carries them. */
  async answerIds(piece: Piece, info: ModelInfo): Promise<number[]> {
    const [template] = info.template;
    if (template === undefined) return [];
    const ended = template.stop.includes(piece.ids.at(-1) ?? -1);
    // A stop text is in the ids, and must not stay in the conversation.
    const again = piece.finish === "stop" && !ended;
    const ids = again ? checked(await this.actor.tokenize(piece.text)).token_ids : piece.ids;
    return closed(Array.from(ids), template);
  }

  /** What a job has written so far, again and again until it has ended. */
  async *follow(job: string): AsyncGenerator<Piece> {
    const id = fromHex(job);
    let pause = FIRST_PAUSE;
    let seen = -1;
    for (;;) {
      const progress = checked(await this.actor.poll(id, 0));
      const piece = pieceOf(progress);
      if (piece.tokens > seen || piece.finish !== null) yield piece;
      if (piece.finish !== null) return;
      pause = piece.tokens > seen ? FIRST_PAUSE : Math.min(1.5 * pause, LONGEST_PAUSE);
      seen = piece.tokens;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }

  async cancel(job: string): Promise<void> {
    checked(await this.actor.cancel(fromHex(job)));
  }

  /** Cancels the job if the page is left from here on; what is returned ends that. */
  cancelledOnLeaving(job: string): () => void {
    return sentOnLeaving(this, "cancel", encoded("cancel", [fromHex(job)]));
  }
}

/** The arguments of a method in Candid. */
export function encoded(method: keyof _SERVICE, values: unknown[]): Uint8Array {
  return IDL.encode(field(method).argTypes, values);
}

/** The first result of a method. */
export function decoded(method: keyof _SERVICE, reply: Uint8Array): unknown {
  return IDL.decode(field(method).retTypes, reply)[0];
}

/** The arguments of a method from their Candid. */
export function decodedArguments(method: keyof _SERVICE, bytes: Uint8Array): unknown[] {
  return IDL.decode(field(method).argTypes, bytes);
}

/** What is in Ok; the canister's refusal is thrown. */
export function checked<T>(result: { Ok: T } | { Err: string }): T {
  if ("Err" in result) throw new Refused(result.Err);
  return result.Ok;
}

const utf8 = (text: string): Uint8Array => new TextEncoder().encode(text);

export const finishName = (finish: object): string => Object.keys(finish)[0] ?? "stop";

/** The type of one of a method's arguments. */
export function argumentType(method: keyof _SERVICE, index: number): IDL.Type {
  const found = field(method).argTypes[index];
  if (found === undefined) throw new Error(`${method} takes fewer arguments`);
  return found;
}

function field(method: keyof _SERVICE): IDL.FuncClass {
  const found = service._fields.find(([name]) => name === method);
  if (found === undefined) throw new Error(`the interface has no ${method}`);
  return found[1];
}

/** All options left to the canister. */
function noOptions(): Options {
  const type = argumentType("submit", 1);
  if (!(type instanceof IDL.RecordClass)) throw new Error("options are no record");
  return Object.fromEntries(type._fields.map(([name]) => [name, []])) as unknown as Options;
}

function pieceOf(progress: Progress): Piece {
  const finish = progress.finish[0];
  if (finish !== undefined && "failed" in finish) throw new Refused(finish.failed);
  return {
    text: progress.text[0] ?? "",
    ids: Array.from(progress.token_ids),
    tokens: progress.token_ids.length,
    promptTokens: progress.prompt_tokens,
    instructions: Number(progress.instructions),
    seed: progress.seed.toString(),
    finish: finish === undefined ? null : finishName(finish),
  };
}

function isLoopback(host: string): boolean {
  const name = new URL(host).hostname;
  return name === "127.0.0.1" || name === "[::1]" || name === "localhost" || name.endsWith(".localhost");
}
