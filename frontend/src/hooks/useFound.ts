/* What is asked of a connection once it is there, and forgotten when another one takes its place. */
import { useEffect, useState } from "react";
import type { Connection } from "@/lib/connection";

/**
 * What the connection answered; null until it has, and nothing hangs on it if it never does. Asked
 * again when `occasion` changes. `ask` has to be the same function each time.
 */
export function useFound<T>(
  connection: Connection | null,
  ask: (connection: Connection) => Promise<T>,
  occasion: unknown = null,
): T | null {
  const [found, setFound] = useState<{ of: Connection; value: T } | null>(null);
  useEffect(() => {
    if (connection === null) return;
    let left = false;
    ask(connection).then(
      (value) => left || setFound({ of: connection, value }),
      () => undefined,
    );
    return () => {
      left = true;
    };
  }, [connection, ask, occasion]);
  return found !== null && found.of === connection ? found.value : null;
}
