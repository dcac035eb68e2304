/* What keeps the page from writing, with what to do about it. */
import { CircleAlert, LoaderCircle, WifiOff } from "lucide-react";
import type { ModelInfo } from "@/bindings/model.did";
import type { Trouble } from "@/lib/trouble";

export function Notice({ trouble, info }: { trouble: Trouble | null; info: ModelInfo | null }) {
  const said = trouble ?? (info === null ? null : ofSetup(info));
  return (
    <div role="status">
      {said && (
        <div className="mb-6 flex gap-3 rounded-xl bg-warn-wash px-4 py-3 text-warn">
          {trouble === null ? (
            <LoaderCircle aria-hidden className="mt-0.5 size-5 shrink-0" />
          ) : trouble.kind === "offline" ? (
            <WifiOff aria-hidden className="mt-0.5 size-5 shrink-0" />
          ) : (
            <CircleAlert aria-hidden className="mt-0.5 size-5 shrink-0" />
          )}
          <p>
            <strong className="font-semibold">{said.title}</strong> {said.advice}
          </p>
        </div>
      )}
    </div>
  );
}

function ofSetup(info: ModelInfo): Pick<Trouble, "title" | "advice"> | null {
  if ("setting_up" in info.setup) {
    const { done, total } = info.setup.setting_up;
    const part = total > 0n ? ` ${Number((100n * done) / total)} % is done.` : "";
    return { title: "The model is being set up.", advice: `The page looks every few seconds.${part}` };
  }
  if ("empty" in info.setup) {
    return {
      title: "The canister has no model yet.",
      advice: "Its owner can upload one: sign in here, or use icgpt upload.",
    };
  }
  return info.tokenizer
    ? null
    : { title: "The model has no tokenizer, so it reads no text.", advice: "Its owner can upload one." };
}
