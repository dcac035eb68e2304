/* One run: the prompt, what the model wrote, what it took, and what can be done with it. */
import { Copy, CornerLeftUp, FileCheck2, RefreshCw } from "lucide-react";
import { Button } from "@/components/ui/button";
import { useToast } from "@/components/ui/toast";
import { Tooltip } from "@/components/ui/tooltip";
import { useAction } from "@/hooks/useAction";
import type { Session } from "@/hooks/useSession";
import { cn } from "@/lib/cn";
import { count, cycles, large, rate } from "@/lib/format";
import { isRunning, type Run } from "@/lib/runs";

interface Props {
  run: Run;
  newest: boolean;
  session: Session;
  /** Something is being written, so nothing else can be asked. */
  busy: boolean;
  /** Null where it makes no sense: in the middle of a conversation. */
  onRetry: (() => void) | null;
  onUse: () => void;
}

export function RunView({ run, newest, session, busy, onRetry, onUse }: Props) {
  const running = isRunning(run);
  return (
    <article aria-busy={running} className="group" data-run={run.state}>
      {run.chat ? (
        <>
          <p dir="auto" className="mb-3 w-fit max-w-full rounded-2xl bg-sunken px-4 py-2 wrap-anywhere whitespace-pre-wrap">
            {run.prompt}
          </p>
          <p dir="auto" data-text className="font-serif text-[1.1875rem] leading-[1.65] wrap-anywhere whitespace-pre-wrap">
            {run.text}
            {running && <Caret />}
          </p>
        </>
      ) : (
        <p dir="auto" data-text className="font-serif text-[1.1875rem] leading-[1.65] wrap-anywhere whitespace-pre-wrap">
          <span className="text-quiet">{run.prompt}</span>
          <span>{run.text}</span>
          {running && <Caret />}
        </p>
      )}
      {run.trouble && (
        <p role="alert" className="mt-3 rounded-xl bg-warn-wash px-4 py-3 text-warn">
          <strong className="font-semibold">{run.trouble.title}</strong> {run.trouble.advice}
        </p>
      )}
      <div className="mt-3 flex flex-wrap items-center justify-between gap-x-4 gap-y-1">
        <p role={newest ? "status" : undefined} data-figures className="min-w-0 overflow-hidden text-[0.8125rem] text-quiet tabular-nums">
          {run.state === "asking" ? "Asking the canister…" : <Figures run={run} />}
        </p>
        {!running && <Actions run={run} session={session} busy={busy} onRetry={onRetry} onUse={onUse} />}
      </div>
    </article>
  );
}

const Caret = () => (
  <span aria-hidden className="ml-0.5 inline-block h-[1.1em] w-[2px] translate-y-[0.2em] animate-caret bg-accent" />
);

const ENDINGS: Record<string, string> = {
  stop: "ended by itself",
  length: "ended at its length",
  context: "the context is full",
  cancelled: "stopped",
};

function Figures({ run }: { run: Run }) {
  const parts = [
    run.tokens === 1 ? "1 token" : `${count(run.tokens)} tokens`,
    `${rate(run.tokens, run.seconds)} a second`,
  ];
  if (run.instructions > 0) {
    const spent = cycles(run.instructions, new TextEncoder().encode(run.prompt).length);
    parts.push(`${large(run.instructions)} instructions`, `about ${large(spent)} cycles`);
  }
  if (!isRunning(run)) {
    if (run.seed !== null) parts.push(`seed ${run.seed}`);
    const ending = run.finish === null ? undefined : ENDINGS[run.finish];
    if (ending !== undefined) parts.push(ending);
  }
  // The point before a part is cut off where a line begins.
  return (
    <span className="-ml-4 block">
      {parts.map((part) => (
        <span key={part} className="relative inline-block pl-4 before:absolute before:left-1.5 before:text-edge before:content-['·'/'']">
          {part}{" "}
        </span>
      ))}
    </span>
  );
}

function Actions({ run, session, busy, onRetry, onUse }: Omit<Props, "newest">) {
  const say = useToast();
  const [making, begin] = useAction();
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(run.chat ? run.text : run.prompt + run.text);
      say("The text is copied.");
    } catch {
      say("This browser does not let the page copy; select the text instead.");
    }
  };
  const receipt = async () => {
    const { connection } = session;
    if (connection === null || run.job === null || run.asked === null) return;
    const { job, asked } = run;
    await begin(async () => {
      const { makeReceipt } = await import("@/receipt/make");
      save(await makeReceipt(connection, job, asked), `receipt-${job.slice(0, 8)}.json`);
      say("The receipt has been checked and saved.");
    });
  };
  const proven = run.asked !== null && run.finish !== null;
  return (
    <div className="-mx-2 flex items-center text-quiet" role="group" aria-label="What to do with this text">
      <Action name="Copy the text" icon={<Copy aria-hidden />} onClick={() => void copy()} />
      {onRetry && <Action name="Write it again" icon={<RefreshCw aria-hidden />} disabled={busy} onClick={onRetry} />}
      <Action name="Use prompt and settings" icon={<CornerLeftUp aria-hidden />} onClick={onUse} />
      {proven && (
        <Action
          name="Save a receipt, which proves who wrote this"
          icon={<FileCheck2 aria-hidden className={cn(making && "opacity-40")} />}
          disabled={making}
          onClick={() => void receipt()}
        />
      )}
    </div>
  );
}

interface ActionProps {
  name: string;
  icon: React.ReactNode;
  disabled?: boolean;
  onClick: () => void;
}

const Action = ({ name, icon, disabled = false, onClick }: ActionProps) => (
  <Tooltip text={name}>
    <Button variant="ghost" size="icon" aria-label={name} disabled={disabled} onClick={onClick}>
      {icon}
    </Button>
  </Tooltip>
);

function save(text: string, name: string): void {
  const address = URL.createObjectURL(new Blob([text], { type: "application/json" }));
  const link = Object.assign(document.createElement("a"), { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}
