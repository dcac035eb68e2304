/* What can be chosen of the next run. */
import { RotateCcw } from "lucide-react";
import { useId, type ReactNode } from "react";
import { Panel } from "@/components/Panel";
import { Button } from "@/components/ui/button";
import { Disclosure } from "@/components/ui/disclosure";
import { Input, Textarea } from "@/components/ui/input";
import { Slider } from "@/components/ui/slider";
import { cn } from "@/lib/cn";
import { LIMITS, seedFault, stopFault, type Settings } from "@/lib/settings";

interface Props {
  settings: Settings;
  /** What the model is asked with when nobody chooses. */
  usual: Settings;
  longest: number;
  onChange: (fields: Partial<Settings>) => void;
  onReset: () => void;
}

// Side by side where the panel is as wide as a tablet.
const FIELDS = "grid gap-x-10 gap-y-3 sm:max-lg:grid-cols-2";

export function SettingsPanel({ settings, usual, longest, onChange, onReset }: Props) {
  const changed = JSON.stringify(settings) !== JSON.stringify(usual);
  return (
    <Panel title="Settings" brief={`${settings.length} tokens, ${settings.temperature.toFixed(2)}`}>
      <div className={FIELDS}>
        <Slider
          label="Length"
          said={settings.length === 1 ? "1 token" : `${settings.length} tokens`}
          value={settings.length}
          min={1}
          max={longest}
          step={1}
          onChange={(length) => onChange({ length })}
        />
        <Slider
          label="Temperature"
          said={settings.temperature.toFixed(2)}
          value={settings.temperature}
          {...LIMITS.temperature}
          step={0.05}
          onChange={(temperature) => onChange({ temperature })}
        />
        <Field label="Top N" hint="Only the likeliest tokens; empty for all">
          {(props) => (
            <Input
              {...props}
              type="number"
              inputMode="numeric"
              {...LIMITS.topN}
              placeholder="all"
              value={settings.topN ?? ""}
              onChange={(event) => onChange({ topN: topNOf(event.target.value) })}
            />
          )}
        </Field>
      </div>
      <Disclosure title="More options" className="mt-2">
        <div className={cn(FIELDS, "pt-2 pb-1")}>
          <Slider
            label="Top P"
            said={settings.topP >= 1 ? "all" : settings.topP.toFixed(2)}
            value={settings.topP}
            {...LIMITS.topP}
            step={0.05}
            onChange={(topP) => onChange({ topP })}
          />
          <Slider
            label="Repetition penalty"
            said={settings.repetitionPenalty === 1 ? "none" : settings.repetitionPenalty.toFixed(2)}
            value={settings.repetitionPenalty}
            {...LIMITS.repetitionPenalty}
            step={0.05}
            onChange={(repetitionPenalty) => onChange({ repetitionPenalty })}
          />
          <Field label="Seed" hint="The same seed writes the same text" fault={seedFault(settings.seed)}>
            {(props) => (
              <Input
                {...props}
                inputMode="numeric"
                placeholder="drawn anew"
                value={settings.seed}
                onChange={(event) => onChange({ seed: event.target.value })}
              />
            )}
          </Field>
          <Field label="Stop texts" hint="One a line; the answer ends before them" fault={stopFault(settings)}>
            {(props) => (
              <Textarea
                {...props}
                rows={2}
                value={settings.stop}
                onChange={(event) => onChange({ stop: event.target.value })}
              />
            )}
          </Field>
        </div>
      </Disclosure>
      {changed && (
        <Button variant="ghost" size="small" className="mt-1 -ml-2.5" onClick={onReset}>
          <RotateCcw aria-hidden /> The model&rsquo;s own settings
        </Button>
      )}
    </Panel>
  );
}

interface FieldProps {
  label: string;
  hint: string;
  fault?: string | null;
  children: (props: { id: string; "aria-describedby": string; "aria-invalid": boolean }) => ReactNode;
}

function Field({ label, hint, fault = null, children }: FieldProps) {
  const id = useId();
  return (
    <div className="grid content-start gap-1">
      <label htmlFor={id}>{label}</label>
      {children({ id, "aria-describedby": `${id}-hint`, "aria-invalid": fault !== null })}
      <p id={`${id}-hint`} className={fault === null ? "text-[0.8125rem] text-quiet" : "text-[0.8125rem] text-warn"}>
        {fault ?? hint}
      </p>
    </div>
  );
}

/** Empty, 0 or less means all. */
function topNOf(text: string): number | null {
  const value = Math.round(Number(text));
  return text === "" || !(value >= 1) ? null : Math.min(value, LIMITS.topN.max);
}
