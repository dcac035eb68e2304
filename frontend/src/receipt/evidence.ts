/*
 * Update calls that can be proven later: the request, and the subnet's certificate of its reply
 * together with the hash of the canister's module. The same as `icgpt.evidence`.
 */
import {
  Certificate,
  LookupPathStatus,
  requestIdOf,
  type CallRequest,
  type HttpAgent,
} from "@icp-sdk/core/agent";
import type { Principal } from "@icp-sdk/core/principal";
import { toHex } from "@/lib/config";
import type { EvidenceJson } from "@/receipt/document";

/** As much of a connection as this needs. */
export interface Caller {
  readonly agent: HttpAgent;
  readonly canister: Principal;
  readonly rootKey: Uint8Array;
}

export interface Asked {
  job: string;
  evidence: EvidenceJson;
}

const TRIES = 25;
const PAUSE = 200; // until a node that lags behind has the reply, too
const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);

/** The reply of an update call, and what proves it. Methods declared as queries work, too. */
export async function certifiedCall(
  caller: Caller,
  method: string,
  arg: Uint8Array,
): Promise<{ reply: Uint8Array; evidence: EvidenceJson }> {
  const { agent, canister } = caller;
  const nonce = crypto.getRandomValues(new Uint8Array(16));
  const done = await agent.update(canister, {
    methodName: method,
    arg,
    effectiveCanisterId: canister,
    nonce,
  });
  const request = done.requestDetails;
  if (request === undefined) throw new Error(`'${method}' was answered without what proves it`);
  const sent = contentOf(request, nonce);
  const id = requestIdOf(sent);
  const status = [bytesOf("request_status"), id];
  const about = [bytesOf("canister"), canister.toUint8Array()];
  const module = [...about, bytesOf("module_hash")];
  const installed = [...about, bytesOf("last_install_timestamp")];
  let paths = [status, module, installed];
  for (let attempt = 1; ; attempt += 1) {
    let certificate: Uint8Array;
    try {
      ({ certificate } = await agent.readState(canister, { paths }));
    } catch (error) {
      // A network that does not certify this refuses the whole of the question.
      if (paths.length < 3) throw error;
      paths = [status, module];
      continue;
    }
    const proof = await Certificate.create({
      certificate,
      rootKey: caller.rootKey,
      principal: { canisterId: canister },
      agent,
    });
    const reply = proof.lookup_path([...status, bytesOf("reply")]);
    if (reply.status === LookupPathStatus.Found) {
      return { reply: reply.value, evidence: evidenceOf(sent, certificate) };
    }
    if (attempt === TRIES) throw new Error(`'${method}' was answered, but no certificate of that could be had`);
    await new Promise((resolve) => setTimeout(resolve, PAUSE));
  }
}

interface Content extends Record<string, unknown> {
  request_type: string;
  canister_id: Uint8Array;
  method_name: string;
  arg: Uint8Array;
  sender: Uint8Array;
  ingress_expiry: bigint;
  nonce: Uint8Array;
}

function contentOf(request: CallRequest, nonce: Uint8Array): Content {
  return {
    request_type: "call",
    canister_id: request.canister_id.toUint8Array(),
    method_name: request.method_name,
    arg: request.arg,
    sender: typeof request.sender === "object" && "toUint8Array" in request.sender ? request.sender.toUint8Array() : request.sender,
    ingress_expiry: request.ingress_expiry.toBigInt(),
    nonce,
  };
}

function evidenceOf(sent: Content, certificate: Uint8Array): EvidenceJson {
  return {
    arg: toHex(sent.arg),
    sender: toHex(sent.sender),
    ingress_expiry: sent.ingress_expiry.toString(),
    nonce: toHex(sent.nonce),
    certificate: toHex(certificate),
  };
}
