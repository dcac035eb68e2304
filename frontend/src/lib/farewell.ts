/*
 * A call for when the page is left, such as one that cancels its job. Nothing can be waited for then, so
 * it is signed beforehand, and anew before it expires; the browser sends it after the page is gone.
 */
import { Cbor, Endpoint, Expiry, SubmitRequestType, type CallRequest } from "@icp-sdk/core/agent";
import type { Connection } from "@/lib/connection";

const MINUTE = 60_000;
const HOLDS = 4 * MINUTE; // a subnet takes no call that holds for more than five
const AGAIN = 2 * MINUTE;

/** Sends the call if the page is left from here on; what is returned ends that. */
export function sentOnLeaving(connection: Connection, method: string, arg: Uint8Array): () => void {
  let body: Uint8Array<ArrayBuffer> | null = null;
  const sign = () => {
    signed(connection, method, arg).then(
      (bytes) => (body = bytes),
      () => (body = null),
    );
  };
  const leave = () => {
    if (body === null) return;
    const address = new URL(`/api/v2/canister/${connection.config.canister}/call`, connection.agent.host);
    const headers = { "Content-Type": "application/cbor" };
    fetch(address, { method: "POST", headers, body, keepalive: true }).catch(() => undefined);
  };
  sign();
  const renewal = setInterval(sign, AGAIN);
  window.addEventListener("pagehide", leave);
  return () => {
    clearInterval(renewal);
    window.removeEventListener("pagehide", leave);
  };
}

async function signed(connection: Connection, method: string, arg: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const { agent, canister, identity } = connection;
  const content: CallRequest = {
    request_type: SubmitRequestType.Call,
    canister_id: canister,
    method_name: method,
    arg,
    sender: identity.getPrincipal(),
    ingress_expiry: Expiry.fromDeltaInMilliseconds(HOLDS, agent.getTimeDiffMsecs()),
  };
  const request = { request: {}, endpoint: Endpoint.Call as const, body: content };
  const { body } = (await identity.transformRequest(request)) as { body: unknown };
  return Uint8Array.from(Cbor.encode(body));
}
