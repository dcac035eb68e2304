/* The runs: the newest first, or a conversation in its order. */
import { Trash2 } from "lucide-react";
import { useEffect } from "react";
import { RunView } from "@/components/RunView";
import { Button } from "@/components/ui/button";
import type { Runs } from "@/hooks/useRuns";
import type { Session } from "@/hooks/useSession";
import { cn } from "@/lib/cn";
import type { Run } from "@/lib/runs";

interface Props {
  runs: Runs;
  session: Session;
  chat: boolean;
  onUse: (run: Run) => void;
}

export function Feed({ runs, session, chat, onUse }: Props) {
  const last = runs.runs.at(-1);
  const ordered = chat ? runs.runs : [...runs.runs].reverse();
  useFollowed(chat ? last : undefined);
  return (
    <section aria-label="What was written" className={cn("min-w-0", !chat && "lg:pt-2")}>
      {ordered.length === 0 ? (
        <p className="py-10 text-center font-serif text-lg text-quiet">{chat ? "Ask the model something." : "What the model writes stands here."}</p>
      ) : (
        <>
          <ol className="grid gap-10">
            {ordered.map((run) => (
              <li key={run.id}>
                <RunView
                  run={run}
                  newest={run === last}
                  session={session}
                  busy={runs.running !== null}
                  onRetry={chat && run !== last ? null : () => runs.retry(run)}
                  onUse={() => onUse(run)}
                />
              </li>
            ))}
          </ol>
          <div className="mt-10 flex items-center justify-between border-t border-line pt-4 text-[0.8125rem] text-quiet">
            <span>Kept in this browser alone.</span>
            <Button variant="ghost" size="small" onClick={runs.clear}>
              <Trash2 aria-hidden /> {chat ? "New conversation" : "Clear all"}
            </Button>
          </div>
        </>
      )}
    </section>
  );
}

/** Keeps the end of what is being written in sight, for who was looking at the end. */
function useFollowed(run: Run | undefined): void {
  useEffect(() => {
    const { scrollHeight } = document.documentElement;
    const near = scrollHeight - window.scrollY - window.innerHeight < 240;
    if (run !== undefined && near) window.scrollTo({ top: scrollHeight });
  }, [run]);
}
