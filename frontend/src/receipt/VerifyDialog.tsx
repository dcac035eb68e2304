/* Checks a receipt's file, and says what it proves. */
import { FileUp, ShieldAlert, ShieldCheck } from "lucide-react";
import { useState, type ReactNode } from "react";
import { Button } from "@/components/ui/button";
import { Dialog } from "@/components/ui/dialog";
import type { Session } from "@/hooks/useSession";
import { cn } from "@/lib/cn";
import { toHex } from "@/lib/config";
import { checked, type Connection } from "@/lib/connection";
import { count } from "@/lib/format";
import { Unreadable, MAX_BYTES } from "@/receipt/document";
import { read } from "@/receipt/file";
import { NotProven, verify, type Proven } from "@/receipt/verify";

type Outcome = { proven: Proven; prompt: PromptText } | { fault: string } | null;

export default function VerifyDialog({ session, onClose }: { session: Session; onClose: () => void }) {
  const [outcome, setOutcome] = useState<Outcome>(null);
  const { connection } = session;
  const check = async (file: File) => {
    if (connection === null) return;
    try {
      if (file.size > MAX_BYTES) throw new Unreadable("it has more than 16 MiB");
      const proven = await verify(read(await file.text()), connection.rootKey);
      setOutcome({ proven, prompt: await promptText(proven, connection) });
    } catch (error) {
      setOutcome({ fault: faultOf(error) });
    }
  };
  return (
    <Dialog title="Check a receipt" onClose={onClose}>
      <p className="text-quiet">
        A receipt proves which canister, code and model wrote a text. It is checked in this browser, against
        the root key of this page&rsquo;s network.
      </p>
      <Button variant="outline" className="mt-4" asChild>
        <label className="cursor-pointer focus-within:outline-2 focus-within:outline-offset-2 focus-within:outline-accent">
          <FileUp aria-hidden /> Choose a receipt
          <input
            type="file"
            accept=".json,application/json"
            className="sr-only"
            disabled={connection === null}
            onChange={(event) => {
              const file = event.target.files?.[0];
              if (file) void check(file);
              event.target.value = "";
            }}
          />
        </label>
      </Button>
      <div role="status" className="mt-5">
        {outcome && ("proven" in outcome ? <Result {...outcome} /> : <Fault text={outcome.fault} />)}
      </div>
    </Dialog>
  );
}

function faultOf(error: unknown): string {
  if (error instanceof Unreadable) return `This is no receipt of icgpt: ${error.message}.`;
  if (error instanceof NotProven) return `It does not hold: ${error.message}.`;
  return "It does not hold: a part of it can't be read.";
}

const Fault = ({ text }: { text: string }) => (
  <div className="flex gap-3 rounded-xl bg-warn-wash px-4 py-3 text-warn">
    <ShieldAlert aria-hidden className="mt-0.5 size-5 shrink-0" />
    <p>
      <strong className="font-semibold">{text}</strong> Either it was changed after it was made, or it is of another
      network.
    </p>
  </div>
);

function Result({ proven, prompt }: { proven: Proven; prompt: PromptText }) {
  return (
    <>
      <p className="flex gap-3 rounded-xl bg-wash px-4 py-3 font-semibold text-accent">
        <ShieldCheck aria-hidden className="mt-0.5 size-5 shrink-0" />
        The receipt holds.
      </p>
      <p dir="auto" className={cn(TEXT, "max-h-40 text-quiet")} tabIndex={0} aria-label="Prompt">
        {prompt.text}
      </p>
      {prompt.read && (
        <p className="mt-1 text-[0.8125rem] text-quiet">
          The receipt has the prompt as token ids; the canister has just said what they mean.
        </p>
      )}
      <p dir="auto" className={cn(TEXT, "max-h-72")} tabIndex={0} aria-label="Text">
        {proven.text ?? "(a model without a tokenizer)"}
      </p>
      <dl className="mt-5 grid gap-2 border-t border-line pt-4 sm:grid-cols-[8rem_minmax(0,1fr)]">
        <Row name="Asked">{`${said(proven.askedAt)} by ${proven.caller === ANONYMOUS ? "an anonymous caller" : proven.caller}`}</Row>
        <Row name="Answered">{`${said(proven.answeredAt)}, ${count(proven.tokens)} tokens, seed ${proven.seed.toString()}`}</Row>
        <Row name="Canister" mono>{proven.canister}</Row>
        <Row name="Code" mono>{proven.moduleHash}</Row>
        <Row name="Weights" mono>{proven.model}</Row>
      </dl>
    </>
  );
}

interface PromptText {
  text: string;
  /** The receipt proves token ids; the canister was asked for their text, shown without empty lines. */
  read: boolean;
}

async function promptText({ prompt, canister, model }: Proven, { actor, config }: Connection): Promise<PromptText> {
  if (typeof prompt === "string") return { text: prompt, read: false };
  const ids = { text: `Token ids ${prompt.join(", ")}`, read: false };
  if (canister !== config.canister) return ids;
  try {
    const [layout] = (await actor.model_info()).layout_sha256;
    // Another model may mean something else by them.
    if (layout === undefined || toHex(Uint8Array.from(layout)) !== model) return ids;
    const text = checked(await actor.decode_batch(Uint32Array.from(prompt)));
    return { text: text.replace(/\n{2,}/g, "\n").trim(), read: true };
  } catch {
    return ids;
  }
}

const TEXT = "mt-5 overflow-y-auto font-serif text-lg leading-relaxed wrap-anywhere whitespace-pre-wrap";
const ANONYMOUS = "2vxsx-fae";
const said = (time: string): string => time.replace("T", " ").replace("Z", " UTC");

const Row = ({ name, mono = false, children }: { name: string; mono?: boolean; children: ReactNode }) => (
  <>
    <dt className="text-quiet">{name}</dt>
    <dd className={mono ? "font-mono text-[0.8125rem] wrap-anywhere" : "wrap-anywhere"}>{children}</dd>
  </>
);
