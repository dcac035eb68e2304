/* What the canister tells of itself, as it was when the model last began or ended a text. */
import { useEffect, useState } from "react";
import type { Connection } from "@/lib/connection";
import type { Figures } from "@/lib/figures";

const NOTHING: Figures = {};

export function useFigures(connection: Connection | null, writing: boolean): Figures {
  const [found, setFound] = useState<{ of: Connection; figures: Figures } | null>(null);
  useEffect(() => {
    if (connection === null) return;
    let left = false;
    connection.figures().then(
      (figures) => left || setFound({ of: connection, figures }),
      () => undefined, // nothing hangs on them
    );
    return () => {
      left = true;
    };
  }, [connection, writing]);
  return found !== null && found.of === connection ? found.figures : NOTHING;
}
