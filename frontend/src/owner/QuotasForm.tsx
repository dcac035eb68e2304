/* How much callers may ask for. */
import { useCallback, useId, useState, type SubmitEvent } from "react";
import { Button } from "@/components/ui/button";
import { Input } from "@/components/ui/input";
import { useToast } from "@/components/ui/toast";
import { useAction } from "@/hooks/useAction";
import { checked, type Connection } from "@/lib/connection";
import { Unanswered, useAsked } from "@/owner/asked";
import { fault, FIELDS, toForm, toQuotas, type Form } from "@/owner/quotas";

export function QuotasForm({ connection }: { connection: Connection }) {
  const { actor } = connection;
  const say = useToast();
  const id = useId();
  const [form, setForm] = useState<Form | null>(null);
  const [busy, begin] = useAction();
  const [found] = useAsked(useCallback(() => actor.quotas(), [actor]));
  if (found === null || "fault" in found) return <Unanswered fault={found?.fault ?? null} />;
  const shown = form ?? toForm(found.value);
  const wrong = fault(shown);

  const send = (event: SubmitEvent) => {
    event.preventDefault();
    return begin(async () => {
      checked(await actor.set_quotas(toQuotas(shown)));
      say("The quotas are set.");
    });
  };
  return (
    <form className="grid gap-x-6 gap-y-3 sm:grid-cols-2" onSubmit={(event) => void send(event)}>
      {FIELDS.map(([name, label, empty]) => (
        <div key={name} className="grid content-end gap-1">
          <label htmlFor={`${id}-${name}`}>{label}</label>
          <Input
            id={`${id}-${name}`}
            inputMode="numeric"
            placeholder={empty}
            value={shown[name]}
            onChange={(event) => setForm({ ...shown, [name]: event.target.value })}
          />
        </div>
      ))}
      <div className="flex items-center gap-3 sm:col-span-2">
        <Button type="submit" variant="outline" disabled={busy || form === null || wrong !== null}>
          Set quotas
        </Button>
        <p role="status" className="text-warn">{wrong}</p>
      </div>
    </form>
  );
}
