/* The runs, the newest first. */
import { Trash2 } from "lucide-react";
import { RunView } from "@/components/RunView";
import { Button } from "@/components/ui/button";
import type { Runs } from "@/hooks/useRuns";
import type { Session } from "@/hooks/useSession";
import { isRunning, type Run } from "@/lib/runs";

interface Props {
  runs: Runs;
  session: Session;
  onUse: (run: Run) => void;
}

export function Feed({ runs, session, onUse }: Props) {
  const newest = [...runs.runs].reverse();
  return (
    <section aria-label="What was written" className="min-w-0 lg:pt-2">
      {newest.length === 0 ? (
        <p className="py-10 text-center font-serif text-lg text-quiet">What the model writes stands here.</p>
      ) : (
        <>
          <ol className="grid gap-10">
            {newest.map((run, index) => (
              <li key={run.id}>
                <RunView
                  run={run}
                  newest={index === 0}
                  session={session}
                  busy={runs.running !== null}
                  onRetry={() => runs.retry(run)}
                  onUse={() => onUse(run)}
                />
              </li>
            ))}
          </ol>
          <div className="mt-10 flex items-center justify-between border-t border-line pt-4 text-[0.8125rem] text-quiet">
            <span>Kept in this browser alone.</span>
            <Button variant="ghost" size="small" disabled={runs.runs.every(isRunning)} onClick={runs.clear}>
              <Trash2 aria-hidden /> Clear all
            </Button>
          </div>
        </>
      )}
    </section>
  );
}
