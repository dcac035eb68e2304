/*
 * Where the model is. The page's canister says so in /config.json; in development, where there is
 * none, the address does: ?canisterId=…
 */

export interface PageConfig {
  canister: string;
  /** "ic", "local", or how the network is called elsewhere. */
  network: string;
  /** DER of the root key; null for mainnet's, which the agent knows. */
  rootKey: Uint8Array | null;
  /** Where calls go; the page's own origin unless it says otherwise. */
  host: string;
  /** Whom to ask for an identity; null for Internet Identity itself. */
  identityProvider: string | null;
}

export class ConfigError extends Error {}

export async function readConfig(
  address: Location = window.location,
  ask: typeof fetch = fetch,
): Promise<PageConfig> {
  const given = new URLSearchParams(address.search).get("canisterId");
  const found = await configFile(ask);
  const canister = text(found?.["model_canister"]) ?? given;
  if (canister === null) {
    throw new ConfigError("The page does not know which canister it belongs to.");
  }
  const key = text(found?.["root_key"]);
  return {
    canister,
    network: text(found?.["network"]) ?? "local",
    rootKey: key === null ? null : fromHex(key),
    host: text(found?.["host"]) ?? address.origin,
    identityProvider: text(found?.["identity_provider"]),
  };
}

async function configFile(ask: typeof fetch): Promise<Record<string, unknown> | null> {
  const answer = await ask("/config.json", { cache: "no-cache" });
  // Where there is no such file, the page itself may be what comes.
  if (!answer.ok || !answer.headers.get("content-type")?.includes("json")) return null;
  const value: unknown = await answer.json();
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : null;
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}

export function fromHex(value: string): Uint8Array<ArrayBuffer> {
  if (value.length % 2 !== 0 || /[^0-9a-f]/.test(value)) {
    throw new ConfigError("A key or hash is no hexadecimal number.");
  }
  return Uint8Array.from(value.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

export function toHex(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
