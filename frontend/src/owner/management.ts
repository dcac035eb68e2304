/* What a controller may see of the canister: its cycles, its memory and its log. */
import { Actor, type ActorMethod } from "@icp-sdk/core/agent";
import { IDL } from "@icp-sdk/core/candid";
import { Principal } from "@icp-sdk/core/principal";
import type { Connection } from "@/lib/connection";

export interface Status {
  cycles: bigint;
  memory_size: bigint;
  idle_cycles_burned_per_day: bigint;
}
interface LogRecord {
  idx: bigint;
  timestamp_nanos: bigint;
  content: Uint8Array;
}
interface Management {
  canister_status: ActorMethod<[{ canister_id: Principal }], Status>;
  fetch_canister_logs: ActorMethod<[{ canister_id: Principal }], { canister_log_records: LogRecord[] }>;
}

const SUBJECT = IDL.Record({ canister_id: IDL.Principal });
const STATUS = IDL.Record({
  cycles: IDL.Nat,
  memory_size: IDL.Nat,
  idle_cycles_burned_per_day: IDL.Nat,
});
const LOGS = IDL.Record({
  canister_log_records: IDL.Vec(
    IDL.Record({ idx: IDL.Nat64, timestamp_nanos: IDL.Nat64, content: IDL.Vec(IDL.Nat8) }),
  ),
});

function management({ agent, canister }: Connection): Management {
  const about = () => ({ effectiveCanisterId: canister });
  return Actor.createActor<Management>(
    ({ IDL: types }) =>
      types.Service({
        canister_status: types.Func([SUBJECT], [STATUS], ["query"]),
        fetch_canister_logs: types.Func([SUBJECT], [LOGS], ["query"]),
      }),
    { agent, canisterId: Principal.managementCanister(), callTransform: about, queryTransform: about },
  );
}

export const status = (connection: Connection): Promise<Status> =>
  management(connection).canister_status({ canister_id: connection.canister });

/** The canister's log, the newest line last. */
export async function log(connection: Connection): Promise<string[]> {
  const found = await management(connection).fetch_canister_logs({ canister_id: connection.canister });
  const text = new TextDecoder();
  return found.canister_log_records.map(({ timestamp_nanos, content }) => {
    const time = new Date(Number(timestamp_nanos / 1_000_000n)).toISOString().slice(0, 19).replace("T", " ");
    return `${time}  ${text.decode(Uint8Array.from(content))}`;
  });
}
