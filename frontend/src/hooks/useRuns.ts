/*
 * The runs on the page, one of which may be written at a time. A run is submitted as a job and then
 * polled; Stop cancels the job, and what it has written stays.
 */
import { useCallback, useEffect, useRef, useState } from "react";
import type { Connection } from "@/lib/connection";
import { isRunning, keepRuns, newRun, readRuns, type Run } from "@/lib/runs";
import { toOptions, type Settings } from "@/lib/settings";
import { troubleOf } from "@/lib/trouble";

export interface Runs {
  runs: Run[];
  running: Run | null;
  write: (prompt: string, settings: Settings, chat: boolean) => void;
  stop: () => void;
  retry: (run: Run) => void;
  clear: () => void;
}

export function useRuns(connection: Connection | null, onTrouble: () => void): Runs {
  const [runs, setRuns] = useState<Run[]>([]);
  const stopping = useRef(false);
  const canister = connection?.config.canister ?? null;

  const [readFor, setReadFor] = useState<string | null>(null);
  if (canister !== null && canister !== readFor) {
    setReadFor(canister);
    setRuns(readRuns(canister));
  }
  const running = runs.find(isRunning) ?? null;
  const busy = running !== null;
  useEffect(() => {
    if (readFor !== null && !busy) keepRuns(runs);
  }, [runs, readFor, busy]);

  const change = useCallback((id: string, fields: Partial<Run>) => {
    setRuns((before) => before.map((run) => (run.id === id ? { ...run, ...fields } : run)));
  }, []);

  const carryOut = useCallback(
    async (run: Run, through: Connection) => {
      const began = performance.now();
      const seconds = () => (performance.now() - began) / 1000;
      let cancelled = false;
      try {
        const asked = await through.submit(run.prompt, toOptions(run.settings));
        change(run.id, { state: "writing", job: asked.job, asked: asked.evidence });
        for await (const piece of through.follow(asked.job)) {
          change(run.id, {
            ...piece,
            seconds: seconds(),
            state: piece.finish === null ? "writing" : "ended",
          });
          if (stopping.current && !cancelled && piece.finish === null) {
            cancelled = true;
            await through.cancel(asked.job);
          }
        }
      } catch (error) {
        change(run.id, { state: "ended", trouble: troubleOf(error), seconds: seconds() });
        onTrouble();
      }
    },
    [change, onTrouble],
  );

  const write = useCallback(
    (prompt: string, settings: Settings, chat: boolean) => {
      if (connection === null) return;
      stopping.current = false;
      const run = newRun(connection.config.canister, prompt, settings, chat);
      setRuns((before) => [...before, run]);
      void carryOut(run, connection);
    },
    [connection, carryOut],
  );

  const stop = useCallback(() => {
    stopping.current = true;
    const job = running?.job;
    // While it is being submitted there is nothing to cancel yet; the first piece sees to it then.
    if (connection !== null && typeof job === "string") {
      connection.cancel(job).catch(() => undefined);
    }
  }, [connection, running]);

  const retry = useCallback((run: Run) => write(run.prompt, run.settings, run.chat), [write]);
  const clear = useCallback(() => setRuns((before) => before.filter(isRunning)), []);
  return { runs, running, write, stop, retry, clear };
}
