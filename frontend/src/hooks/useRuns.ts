/*
 * The runs on the page, one of which may be written at a time. A run is submitted as a job and then
 * polled; Stop cancels the job, and what it has written stays.
 */
import { useCallback, useEffect, useRef, useState } from "react";
import type { ModelInfo } from "@/bindings/model.did";
import type { Connection } from "@/lib/connection";
import { isRunning, keepRuns, newRun, readRuns, type Run } from "@/lib/runs";
import { isChat, toOptions, type Settings } from "@/lib/settings";
import { troubleOf } from "@/lib/trouble";

export interface Runs {
  runs: Run[];
  running: Run | null;
  write: (prompt: string, settings: Settings) => void;
  stop: () => void;
  retry: (run: Run) => void;
  clear: () => void;
}

export function useRuns(connection: Connection | null, info: ModelInfo | null, onTrouble: () => void): Runs {
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
    async (run: Run, before: Run[], through: Connection, model: ModelInfo) => {
      const began = performance.now();
      const seconds = () => (performance.now() - began) / 1000;
      const options = toOptions(run.settings);
      let cancelled = false;
      try {
        const turns = before.flatMap(({ turn }) => (turn === null ? [] : [turn]));
        const { job, evidence, own } = run.chat
          ? await through.say(run.prompt, options, turns, model)
          : { ...(await through.submit({ text: run.prompt }, options)), own: null };
        change(run.id, { state: "writing", job, asked: evidence });
        for await (const piece of through.follow(job)) {
          const { text, tokens, promptTokens, instructions, seed, finish } = piece;
          const turn = finish !== null && own !== null ? { own, answer: await through.answerIds(piece, model) } : null;
          change(run.id, {
            ...{ text, tokens, promptTokens, instructions, seed, finish, turn },
            seconds: seconds(),
            state: finish === null ? "writing" : "ended",
          });
          if (stopping.current && !cancelled && finish === null) {
            cancelled = true;
            await through.cancel(job);
          }
        }
      } catch (error) {
        change(run.id, { state: "ended", trouble: troubleOf(error), seconds: seconds() });
        onTrouble();
      }
    },
    [change, onTrouble],
  );

  /** Begins a run that follows `before`. */
  const begin = useCallback(
    (before: Run[], prompt: string, settings: Settings) => {
      if (connection === null || info === null) return;
      stopping.current = false;
      const run = newRun(connection.config.canister, prompt, settings, isChat(info));
      setRuns([...before, run]);
      void carryOut(run, before, connection, info);
    },
    [connection, info, carryOut],
  );
  const write = useCallback(
    (prompt: string, settings: Settings) => begin(runs, prompt, settings),
    [begin, runs],
  );

  const stop = useCallback(() => {
    stopping.current = true;
    const job = running?.job;
    // While it is being submitted there is nothing to cancel yet; the first piece sees to it then.
    if (connection !== null && typeof job === "string") {
      connection.cancel(job).catch(() => undefined);
    }
  }, [connection, running]);

  const retry = useCallback(
    // Of a conversation the last turn is said again, with what was said before it.
    (run: Run) => begin(run.chat ? runs.filter((one) => one.id !== run.id) : runs, run.prompt, run.settings),
    [begin, runs],
  );
  const clear = useCallback(() => setRuns((before) => before.filter(isRunning)), []);
  return { runs, running, write, stop, retry, clear };
}
