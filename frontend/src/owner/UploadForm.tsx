/* Uploads a model from the browser: files, precision, progress, and going on after a break. */
import { FolderOpen } from "lucide-react";
import { useCallback, useId, useRef, useState } from "react";
import { Button } from "@/components/ui/button";
import { Input, Select } from "@/components/ui/input";
import type { Connection } from "@/lib/connection";
import { bytes } from "@/lib/format";
import { troubleOf } from "@/lib/trouble";
import { useAsked } from "@/owner/asked";
import { fault, sorted, upload, UploadFault, type Chosen, type Step } from "@/owner/upload";

type Outcome = { good: boolean; text: string } | null;
const NAMES = { hash: "Hashing", send: "Sending", setup: "Setting up" };

export function UploadForm({ connection, onModel }: { connection: Connection; onModel: () => void }) {
  const id = useId();
  const [chosen, setChosen] = useState<Chosen>({});
  const [precision, setPrecision] = useState("");
  const [name, setName] = useState("");
  const [step, setStep] = useState<Step | null>(null);
  const [outcome, setOutcome] = useState<Outcome>(null);
  const pause = useRef<AbortController | null>(null);
  const [begun] = useAsked(useCallback(() => connection.actor.missing({ safetensors: null }), [connection]));
  const half = begun !== null && "value" in begun ? begun.value[0] : undefined;

  const files = Object.values(chosen);
  const wrong = files.length === 0 ? null : fault(chosen);
  const begin = async () => {
    const control = new AbortController();
    pause.current = control;
    setOutcome(null);
    try {
      await upload(connection, chosen, precision || null, name.trim() || null, setStep, control.signal);
      setOutcome({ good: true, text: "The model is set up and answers." });
      onModel();
    } catch (error) {
      setOutcome({ good: false, text: control.signal.aborted ? PAUSED : wordsOf(error) });
    } finally {
      setStep(null);
    }
  };

  return (
    <div className="grid gap-4">
      {half && !half.committed && step === null && outcome === null && (
        <p className="rounded-lg bg-wash px-4 py-2.5 text-accent">
          An upload has broken off: {bytes(Number(half.arrived))} of {bytes(Number(half.length))} of weights are there.
          Choose the same files to go on.
        </p>
      )}
      <div className="flex flex-wrap items-center gap-3">
        <Button variant="outline" asChild>
          <label className="cursor-pointer focus-within:outline-2 focus-within:outline-offset-2 focus-within:outline-accent">
            <FolderOpen aria-hidden /> Choose files
            <input
              type="file"
              multiple
              className="sr-only"
              accept=".safetensors,.json"
              disabled={step !== null}
              onChange={(event) => {
                setChosen({ ...chosen, ...sorted(event.target.files ?? []) });
                setOutcome(null);
                event.target.value = "";
              }}
            />
          </label>
        </Button>
        <p className="min-w-0 grow basis-40 text-[0.8125rem] text-quiet">
          {files.length === 0
            ? "model.safetensors, config.json and tokenizer.json"
            : files.map((file) => `${file.name} (${bytes(file.size)})`).join(", ")}
        </p>
      </div>
      {wrong !== null && <p className="text-warn">{wrong}</p>}
      <div className="flex flex-wrap items-end gap-3">
        <div className="grid gap-1">
          <label htmlFor={`${id}-precision`}>Precision</label>
          <Select
            id={`${id}-precision`}
            className="w-auto"
            value={precision}
            disabled={step !== null}
            onChange={(event) => setPrecision(event.target.value)}
          >
            <option value="">as config.json says</option>
            <option value="int8">8 bits</option>
            <option value="int16">16 bits</option>
            <option value="f32">32 bits</option>
          </Select>
        </div>
        <div className="grid grow basis-40 gap-1">
          <label htmlFor={`${id}-name`}>Name</label>
          <Input
            id={`${id}-name`}
            value={name}
            maxLength={96}
            placeholder="none"
            disabled={step !== null}
            onChange={(event) => setName(event.target.value)}
          />
        </div>
        {step === null ? (
          <Button disabled={files.length === 0 || wrong !== null} onClick={() => void begin()}>
            Upload
          </Button>
        ) : (
          <Button variant="outline" disabled={step.name === "setup"} onClick={() => pause.current?.abort()}>
            Pause
          </Button>
        )}
      </div>
      {step && <Progress step={step} />}
      <p role="status" className={outcome?.good ? "text-accent" : "text-warn"}>
        {outcome?.text}
      </p>
    </div>
  );
}

const PAUSED = "Paused. What has arrived is kept; upload the same files to go on.";

function wordsOf(error: unknown): string {
  if (error instanceof UploadFault) return error.message;
  const { title, advice } = troubleOf(error);
  return `${title} ${advice} What has arrived is kept.`;
}

function Progress({ step }: { step: Step }) {
  const share = step.total === 0 ? 0 : Math.min(1, step.done / step.total);
  const resumed = step.resumed > 0 ? `, ${bytes(step.resumed)} of it from before` : "";
  return (
    <div className="grid gap-1.5">
      <progress aria-label={NAMES[step.name]} value={share} max={1} className="h-1.5 w-full accent-accent" />
      <p className="text-[0.8125rem] text-quiet tabular-nums">
        {NAMES[step.name]}: {bytes(step.done)} of {bytes(step.total)}
        {resumed}
      </p>
    </div>
  );
}
