/*
 * What the canister runs. While it can't write (it is stopped, out of reach, or being set up) it is
 * asked again every few seconds.
 */
import { useCallback, useEffect, useState } from "react";
import type { ModelInfo } from "@/bindings/model.did";
import type { Connection } from "@/lib/connection";
import { troubleOf, type Trouble } from "@/lib/trouble";

export interface Model {
  info: ModelInfo | null;
  trouble: Trouble | null;
  look: () => void;
}

const SECONDS = 4;

export function useModel(connection: Connection | null): Model {
  const [info, setInfo] = useState<ModelInfo | null>(null);
  const [trouble, setTrouble] = useState<Trouble | null>(null);
  const [turn, setTurn] = useState(0);
  const look = useCallback(() => setTurn((before) => before + 1), []);

  useEffect(() => {
    if (connection === null) return;
    let left = false;
    let again: ReturnType<typeof setTimeout> | undefined;
    const wait = () => {
      again = setTimeout(look, 1000 * SECONDS);
    };
    connection.info().then(
      (found) => {
        if (left) return;
        setInfo(found);
        setTrouble(null);
        if (!("ready" in found.setup)) wait();
      },
      (error: unknown) => {
        if (left) return;
        setTrouble(troubleOf(error));
        wait();
      },
    );
    window.addEventListener("online", look);
    return () => {
      left = true;
      clearTimeout(again);
      window.removeEventListener("online", look);
    };
  }, [connection, turn, look]);

  return { info, trouble, look };
}
