/*
 * The receipt of a job that has ended: three certificates and what hangs on them, checked here before
 * it is given away. `icgpt verify` reads the file.
 */
import type { JobCertificateResult } from "@/bindings/model.did";
import { fromHex, toHex } from "@/lib/config";
import { checked, encoded, type Connection } from "@/lib/connection";
import { VERSION, write, type EvidenceJson, type Json } from "@/receipt/document";
import { certifiedCall } from "@/receipt/evidence";
import type { Kept } from "@/receipt/file";
import { verify } from "@/receipt/verify";

export async function makeReceipt(connection: Connection, job: string, asked: EvidenceJson): Promise<string> {
  const id = fromHex(job);
  const found: JobCertificateResult = await connection.actor.job_certificate(id);
  const proof = checked(found);
  const { evidence } = await certifiedCall(connection, "poll", encoded("poll", [id, 0]));
  const { canister, network } = connection.config;
  const kept: Kept = {
    network,
    canister,
    job,
    asked,
    proof: {
      certificate: toHex(Uint8Array.from(proof.certificate)),
      witness: toHex(Uint8Array.from(proof.witness)),
      receipt: toHex(Uint8Array.from(proof.receipt)),
    },
    answered: evidence,
    shows: null,
  };
  const proven = await verify(kept, connection.rootKey);
  const document: Json = {
    icgpt_receipt: VERSION,
    network,
    canister,
    job,
    shows: proven.shown,
    asked: callJson(kept.asked),
    proof: { ...kept.proof },
    answered: callJson(kept.answered),
  };
  return `${write(document)}\n`;
}

const callJson = (call: EvidenceJson): Json => ({ ...call, ingress_expiry: BigInt(call.ingress_expiry) });
