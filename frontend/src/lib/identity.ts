/*
 * Who asks: nobody by name, or who has signed in with Internet Identity. The session's key stays in
 * this browser (it can't be read out), and what was signed in with ends after eight hours.
 */
import { AuthClient } from "@icp-sdk/auth/client";
import { AnonymousIdentity, type Identity } from "@icp-sdk/core/agent";
import type { PageConfig } from "@/lib/config";

let client: AuthClient | null = null;

function clientOf(config: PageConfig): AuthClient {
  client ??= new AuthClient({
    ...(config.identityProvider !== null && { identityProvider: config.identityProvider }),
    windowOpenerFeatures: "width=525,height=705,left=100,top=100",
    idleOptions: { disableIdle: true },
  });
  return client;
}

/** The identity of an earlier visit that still holds; null when there is none. */
export async function restored(config: PageConfig): Promise<Identity | null> {
  const auth = clientOf(config);
  if (!auth.isAuthenticated()) return null;
  const identity = await auth.getIdentity();
  return identity instanceof AnonymousIdentity ? null : identity;
}

/** Opens the identity provider's window; to be called from a click. */
export async function signIn(config: PageConfig): Promise<Identity> {
  return await clientOf(config).signIn();
}

export async function signOut(config: PageConfig): Promise<void> {
  await clientOf(config).signOut();
}
