/*
 * The connection to the model and who asks. The agent is loaded once the page stands; a session of
 * an earlier visit is taken up again.
 */
import { useCallback, useEffect, useState } from "react";
import { readConfig, type PageConfig } from "@/lib/config";
import type { Connection } from "@/lib/connection";
import { troubleOf, type Trouble } from "@/lib/trouble";

export interface Session {
  config: PageConfig | null;
  connection: Connection | null;
  /** The principal that is signed in; null for anonymous callers. */
  principal: string | null;
  trouble: Trouble | null;
  signIn: () => Promise<void>;
  signOut: () => Promise<void>;
}

interface State {
  config: PageConfig | null;
  connection: Connection | null;
  principal: string | null;
  trouble: Trouble | null;
  identities: typeof import("@/lib/identity") | null;
}

const late = () => Promise.all([import("@/lib/connection"), import("@/lib/identity")]);

export function useSession(): Session {
  const [state, setState] = useState<State>({
    config: null,
    connection: null,
    principal: null,
    trouble: null,
    identities: null,
  });

  const open = useCallback(async (config: PageConfig) => {
    const [{ Connection }, identities] = await late();
    const signedIn = await identities.restored(config);
    const connection = await Connection.open(config, signedIn ?? undefined);
    const principal = signedIn === null ? null : connection.caller.toText();
    setState({ config, connection, principal, trouble: null, identities });
  }, []);

  useEffect(() => {
    let left = false;
    let again: ReturnType<typeof setTimeout>;
    const begin = async () => {
      try {
        // Side by side: on a slow line each takes its time.
        const [config] = await Promise.all([readConfig(), late()]);
        await open(config);
      } catch (error) {
        if (left) return;
        setState((before) => ({ ...before, trouble: troubleOf(error) }));
        again = setTimeout(() => void begin(), 5000);
      }
    };
    void begin();
    return () => {
      left = true;
      clearTimeout(again);
    };
  }, [open]);

  const { config, identities } = state;
  const signIn = useCallback(async () => {
    if (config === null || identities === null) return;
    // Before anything is waited for: browsers open windows only while a click is handled.
    await identities.signIn(config);
    await open(config);
  }, [config, identities, open]);
  const signOut = useCallback(async () => {
    if (config === null || identities === null) return;
    await identities.signOut(config);
    await open(config);
  }, [config, identities, open]);

  return { ...state, signIn, signOut };
}
