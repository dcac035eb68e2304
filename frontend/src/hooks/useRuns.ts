/*
 * The runs on the page, one of which may be written at a time. A run is submitted as a job and then
 * polled. Stop, clearing and leaving the page cancel the job; after the first and the last of them
 * what it has written stays.
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
  const current = useRef<AbortController | null>(null);
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

  useEffect(() => {
    const leave = () => keepRuns(runs.map((run) => (run.state === "writing" ? cutOff(run) : run)));
    window.addEventListener("pagehide", leave);
    return () => window.removeEventListener("pagehide", leave);
  }, [runs]);

  const change = useCallback((id: string, fields: Partial<Run>) => {
    setRuns((before) => before.map((run) => (run.id === id ? { ...run, ...fields } : run)));
  }, []);

  const carryOut = useCallback(
    async (run: Run, before: Run[], through: Connection, model: ModelInfo, ending: AbortSignal) => {
      const began = performance.now();
      const seconds = () => (performance.now() - began) / 1000;
      const options = toOptions(run.settings);
      let stay = () => {};
      try {
        const turns = before.flatMap(({ turn }) => (turn === null ? [] : [turn]));
        const { job, evidence, own } = run.chat
          ? await through.say(run.prompt, options, turns, model)
          : { ...(await through.submit({ text: run.prompt }, options)), own: null };
        change(run.id, { state: "writing", job, asked: evidence });
        let cancelling: Promise<void> | null = null;
        const cancel = () => {
          cancelling ??= through.cancel(job).catch(() => {
            cancelling = null;
          });
        };
        ending.addEventListener("abort", cancel);
        stay = through.cancelledOnLeaving(job);
        for await (const piece of through.follow(job)) {
          const { text, tokens, promptTokens, instructions, seed, finish } = piece;
          const turn = finish !== null && own !== null ? { own, answer: await through.answerIds(piece, model) } : null;
          change(run.id, {
            ...{ text, tokens, promptTokens, instructions, seed, finish, turn },
            seconds: seconds(),
            state: finish === null ? "writing" : "ended",
          });
          // Stopped before there was a job, or the network did not take it.
          if (ending.aborted && finish === null) cancel();
        }
      } catch (error) {
        change(run.id, { state: "ended", trouble: troubleOf(error), seconds: seconds() });
        onTrouble();
      } finally {
        stay();
      }
    },
    [change, onTrouble],
  );

  /** Begins a run that follows `before`. */
  const begin = useCallback(
    (before: Run[], prompt: string, settings: Settings) => {
      if (connection === null || info === null) return;
      const ending = new AbortController();
      current.current = ending;
      const run = newRun(connection.config.canister, prompt, settings, isChat(info));
      setRuns([...before, run]);
      void carryOut(run, before, connection, info, ending.signal);
    },
    [connection, info, carryOut],
  );
  const write = useCallback(
    (prompt: string, settings: Settings) => begin(runs, prompt, settings),
    [begin, runs],
  );

  const stop = useCallback(() => current.current?.abort(), []);
  const retry = useCallback(
    // Of a conversation the last turn is said again, with what was said before it.
    (run: Run) => begin(run.chat ? runs.filter((one) => one.id !== run.id) : runs, run.prompt, run.settings),
    [begin, runs],
  );
  const clear = useCallback(() => {
    stop();
    setRuns([]);
  }, [stop]);
  return { runs, running, write, stop, retry, clear };
}

/** A run as it is found again by who left while it was written. */
const cutOff = (run: Run): Run => ({ ...run, state: "ended", finish: "cancelled" });
