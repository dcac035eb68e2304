/* What answers: the model, the canister's code, and what proves both. */
import { Copy } from "lucide-react";
import { useEffect, useState, type ReactNode } from "react";
import type { ModelInfo } from "@/bindings/model.did";
import { Panel } from "@/components/Panel";
import { Button } from "@/components/ui/button";
import { useToast } from "@/components/ui/toast";
import { Tooltip } from "@/components/ui/tooltip";
import { useFound } from "@/hooks/useFound";
import { toHex } from "@/lib/config";
import type { Connection } from "@/lib/connection";
import { memoryOf, type Figures } from "@/lib/figures";
import { brief, bytes, count, large } from "@/lib/format";
import { isChat } from "@/lib/settings";

const FAMILIES: Record<string, string> = { gpt2: "GPT-2", gptj: "GPT-J" };
const PRECISIONS: Record<string, string> = { int8: "8 bits", int16: "16 bits", f32: "32 bits" };

const NOTHING: Figures = {};
const figuresOf = (connection: Connection) => connection.figures();

interface Props {
  info: ModelInfo | null;
  connection: Connection | null;
  writing: boolean;
}

export function ModelCard({ info, connection, writing }: Props) {
  const module = useModuleHash(connection);
  // As they were when the model last began or ended a text.
  const figures = useFound(connection, figuresOf, writing) ?? NOTHING;
  const memory = memoryOf(figures);
  const shape = info?.architecture[0];
  const name = info?.name[0];
  const layout = info?.layout_sha256[0];
  return (
    <Panel title="Model" {...(shape && { brief: name ?? `${large(Number(shape.parameters))} parameters` })}>
      <dl className="grid gap-x-10 gap-y-1.5 sm:max-lg:grid-cols-2 [&>div]:flex [&>div]:items-baseline [&>div]:justify-between [&>div]:gap-4">
        {info && shape && (
          <>
            {name !== undefined && <Row name="Name">{name}</Row>}
            <Row name="Kind">{`${FAMILIES[shape.family] ?? shape.family}, ${isChat(info) ? "answers" : "continues"}`}</Row>
            <Row name="Size">{`${large(Number(shape.parameters))} parameters`}</Row>
            <Row name="Precision">{PRECISIONS[info.precision] ?? info.precision}</Row>
            <Row name="Context">{`${count(shape.n_ctx)} tokens${info.context === "slide" ? ", sliding" : ""}`}</Row>
          </>
        )}
        {layout && <Hash name="Weights" value={toHex(layout)} />}
        {module !== null && <Hash name="Code" value={module} />}
        {connection && <Hash name="Canister" value={connection.config.canister} />}
        {figures["cycles"] !== undefined && <Row name="Cycles left">{large(figures["cycles"])}</Row>}
        {memory !== null && <Row name="Memory">{bytes(memory)}</Row>}
        {info && <Row name="Version">{info.module_version}</Row>}
      </dl>
    </Panel>
  );
}

const Row = ({ name, children }: { name: string; children: ReactNode }) => (
  <div>
    <dt className="text-quiet">{name}</dt>
    <dd className="min-w-0 text-right tabular-nums wrap-anywhere">{children}</dd>
  </div>
);

function Hash({ name, value }: { name: string; value: string }) {
  const say = useToast();
  const copy = () => {
    navigator.clipboard.writeText(value).then(
      () => say(`${name}: copied.`),
      () => say(value),
    );
  };
  return (
    <Row name={name}>
      <Tooltip text={value}>
        <Button variant="ghost" size="small" className="-my-1 -mr-2 h-7 gap-1.5 px-2 font-mono text-ink" onClick={copy}>
          {brief(value, 5)}
          <span className="sr-only">, copy it</span>
          <Copy aria-hidden className="size-3.5! text-quiet" />
        </Button>
      </Tooltip>
    </Row>
  );
}

/** The hash of the canister's code, as the subnet certifies it. */
function useModuleHash(connection: Connection | null): string | null {
  const [hash, setHash] = useState<string | null>(null);
  useEffect(() => {
    if (connection === null) return;
    let left = false;
    connection.moduleHash().then(
      (found) => left || setHash(found),
      () => left || setHash(null),
    );
    return () => {
      left = true;
    };
  }, [connection]);
  return hash;
}
