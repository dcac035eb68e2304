/* What the canister writes at the moment, for whom, and a way to end it; what it has written before. */
import { CircleStop } from "lucide-react";
import { useCallback, useEffect } from "react";
import { Button } from "@/components/ui/button";
import type { RunningJob } from "@/bindings/model.did";
import { useAction } from "@/hooks/useAction";
import { toHex } from "@/lib/config";
import { checked, type Connection } from "@/lib/connection";
import { count } from "@/lib/format";
import { Unanswered, useAsked } from "@/owner/asked";

const PAUSE = 2_000;

export function JobsList({ connection }: { connection: Connection }) {
  const { actor } = connection;
  const [busy, begin] = useAction();
  const ask = useCallback(() => Promise.all([actor.jobs(), connection.figures()]), [actor, connection]);
  const [found, again] = useAsked(ask);
  useEffect(() => {
    const timer = setTimeout(again, PAUSE);
    return () => clearTimeout(timer);
  }, [found, again]);

  const end = ({ job }: RunningJob) =>
    begin(async () => {
      checked(await actor.cancel(job));
      again();
    });

  if (found === null || "fault" in found) return <Unanswered fault={found?.fault ?? null} />;
  const [jobs, figures] = found.value;
  return (
    <>
      <ul className="divide-y divide-line rounded-lg border border-line">
        {jobs.map((one) => {
          const name = toHex(one.job);
          const owner = one.owner.toText();
          const written = `${count(Number(one.tokens))} of ${count(Number(one.max_tokens))} tokens`;
          return (
            <li key={name} className="flex items-center gap-3 py-1 pr-1 pl-3">
              <div className="min-w-0 grow py-1">
                <p className="tabular-nums">{one.running ? written : "Waits for its turn"}</p>
                <p className="truncate font-mono text-[0.8125rem] text-quiet" title={owner}>
                  {owner}
                </p>
              </div>
              <Button
                variant="ghost"
                size="icon"
                disabled={busy}
                aria-label={`End the job ${name.slice(0, 12)}`}
                onClick={() => void end(one)}
              >
                <CircleStop aria-hidden />
              </Button>
            </li>
          );
        })}
        {jobs.length === 0 && <li className="px-3 py-2 text-quiet">Nothing is being written.</li>}
      </ul>
      <p className="mt-3 text-quiet tabular-nums">
        Jobs that have ended since the last upgrade wrote {count(figures['tokens_total{kind="completion"}'] ?? 0)} tokens.
      </p>
    </>
  );
}
