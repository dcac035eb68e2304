/* What owners see: the model's upload, what is written, who may use it and how much, cycles and the log. */
import { useCallback, type ReactNode } from "react";
import { Dialog } from "@/components/ui/dialog";
import { bytes, large } from "@/lib/format";
import type { Connection } from "@/lib/connection";
import { AccessForm } from "@/owner/AccessForm";
import { Unanswered, useAsked } from "@/owner/asked";
import { JobsList } from "@/owner/JobsList";
import { log, status, type Status } from "@/owner/management";
import { QuotasForm } from "@/owner/QuotasForm";
import { UploadForm } from "@/owner/UploadForm";

interface Props {
  connection: Connection;
  /** Controllers may see cycles and the log too. */
  controller: boolean;
  onModel: () => void;
  onClose: () => void;
}

export default function OwnerDialog({ connection, controller, onModel, onClose }: Props) {
  return (
    <Dialog title="Manage the canister" onClose={onClose}>
      <div className="grid grid-cols-1 gap-9">
        <Part title="Model">
          <UploadForm connection={connection} onModel={onModel} />
        </Part>
        <Part title="Jobs">
          <JobsList connection={connection} />
        </Part>
        <Part title="Access">
          <AccessForm connection={connection} />
        </Part>
        <Part title="Quotas">
          <QuotasForm connection={connection} />
        </Part>
        <Part title="Cycles and log">
          {controller ? (
            <Insides connection={connection} />
          ) : (
            <p className="text-quiet">Controllers see the log, and how many cycles go while idle; you are a manager.</p>
          )}
        </Part>
      </div>
    </Dialog>
  );
}

const Part = ({ title, children }: { title: string; children: ReactNode }) => (
  <section aria-label={title}>
    <h3 className="mb-3 font-serif text-xl font-medium">{title}</h3>
    {children}
  </section>
);

function Insides({ connection }: { connection: Connection }) {
  const read = useCallback(() => Promise.all([status(connection), log(connection)]), [connection]);
  const [found] = useAsked(read);
  if (found === null || "fault" in found) return <Unanswered fault={found?.fault ?? null} />;
  const [state, lines]: [Status, string[]] = found.value;
  return (
    <>
      <p>
        {large(Number(state.cycles))} cycles, {large(Number(state.idle_cycles_burned_per_day))} of them a day while
        idle; {bytes(Number(state.memory_size))} of memory.
      </p>
      <pre tabIndex={0} aria-label="Log" className="mt-3 max-h-56 overflow-auto rounded-lg bg-sunken p-3 font-mono text-[0.8125rem] whitespace-pre-wrap">
        {lines.length === 0 ? "The log is empty." : lines.slice(-100).join("\n")}
      </pre>
    </>
  );
}
