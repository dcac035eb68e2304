/* Who may use the canister: public mode, managers and users. */
import { Principal } from "@icp-sdk/core/principal";
import { Trash2 } from "lucide-react";
import { useCallback, useId, useState, type SubmitEvent } from "react";
import { Button } from "@/components/ui/button";
import { Input, Select } from "@/components/ui/input";
import { Switch } from "@/components/ui/switch";
import { useToast } from "@/components/ui/toast";
import { useAction } from "@/hooks/useAction";
import type { Connection } from "@/lib/connection";
import { Unanswered, useAsked } from "@/owner/asked";

type Role = "user" | "manager";

export function AccessForm({ connection }: { connection: Connection }) {
  const { actor } = connection;
  const say = useToast();
  const id = useId();
  const [busy, begin] = useAction();
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("user");
  const [found, again] = useAsked(useCallback(() => actor.access(), [actor]));

  const change = (action: () => Promise<unknown>) =>
    begin(async () => {
      await action();
      again();
    });
  const add = (event: SubmitEvent) => {
    event.preventDefault();
    let principal: Principal;
    try {
      principal = Principal.fromText(name.trim());
    } catch {
      say("This is no principal. One looks like 2vxsx-fae.");
      return;
    }
    setName("");
    void change(() => (role === "manager" ? actor.add_manager(principal) : actor.add_user(principal)));
  };
  const remove = (from: Role, principal: Principal) =>
    void change(() => (from === "manager" ? actor.remove_manager(principal) : actor.remove_user(principal)));

  if (found === null || "fault" in found) return <Unanswered fault={found?.fault ?? null} />;
  const access = found.value;
  const people = [
    ...access.managers.map((principal) => ({ principal, of: "manager" as const })),
    ...access.users.map((principal) => ({ principal, of: "user" as const })),
  ];
  return (
    <div className="grid gap-4" aria-busy={busy}>
      <div className="flex items-center justify-between gap-4">
        <label htmlFor={`${id}-public`}>
          Public
          <span className="block text-[0.8125rem] text-quiet">Anyone may have the model write, within the quotas.</span>
        </label>
        <Switch
          id={`${id}-public`}
          checked={access.public}
          disabled={busy}
          onCheckedChange={(on) => void change(() => actor.set_public_mode(on))}
        />
      </div>
      <ul className="divide-y divide-line rounded-lg border border-line">
        {people.map(({ principal, of }) => (
          <li key={`${of} ${principal.toText()}`} className="flex items-center gap-3 py-1 pr-1 pl-3">
            <span className="min-w-0 grow font-mono text-[0.8125rem] wrap-anywhere">{principal.toText()}</span>
            <span className="shrink-0 text-[0.8125rem] text-quiet">{of}</span>
            <Button
              variant="ghost"
              size="icon"
              disabled={busy}
              aria-label={`Remove the ${of} ${principal.toText()}`}
              onClick={() => remove(of, principal)}
            >
              <Trash2 aria-hidden />
            </Button>
          </li>
        ))}
        {people.length === 0 && <li className="px-3 py-2 text-quiet">Nobody is listed.</li>}
      </ul>
      <form className="flex flex-wrap gap-2" onSubmit={add}>
        <Input
          aria-label="Principal"
          className="min-w-48 grow basis-0 font-mono text-[0.8125rem]"
          placeholder="Principal"
          value={name}
          onChange={(event) => setName(event.target.value)}
        />
        <Select aria-label="Role" className="w-auto" value={role} onChange={(event) => setRole(event.target.value as Role)}>
          <option value="user">user</option>
          <option value="manager">manager</option>
        </Select>
        <Button type="submit" variant="outline" disabled={busy || name.trim() === ""}>
          Add
        </Button>
      </form>
    </div>
  );
}
