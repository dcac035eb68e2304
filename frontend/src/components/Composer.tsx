/* Where a prompt is written: the text, examples to begin with, Write and Stop. */
import { PenLine, SendHorizontal, Share2, Square } from "lucide-react";
import type { KeyboardEvent } from "react";
import type { ModelInfo } from "@/bindings/model.did";
import { Button } from "@/components/ui/button";
import { useToast } from "@/components/ui/toast";
import { Tooltip } from "@/components/ui/tooltip";
import { examples, label } from "@/lib/examples";
import { count } from "@/lib/format";
import { isChat, MAX_PROMPT, seedFault, stopFault, toFragment, type Settings } from "@/lib/settings";

interface Props {
  prompt: string;
  onPrompt: (text: string) => void;
  settings: Settings;
  info: ModelInfo | null;
  /** The model can be asked now. */
  ready: boolean;
  writing: boolean;
  /** Nothing has been written yet, or what comes next has nothing to do with it. */
  fresh: boolean;
  onWrite: () => void;
  onStop: () => void;
}

export function Composer({ prompt, onPrompt, settings, info, ready, writing, fresh, onWrite, onStop }: Props) {
  const say = useToast();
  const chat = info !== null && isChat(info);
  const sound = seedFault(settings.seed) === null && stopFault(settings) === null;
  const may = ready && sound && prompt !== "" && !writing;

  const onKeyDown = (event: KeyboardEvent) => {
    const sends = event.key === "Enter" && (event.metaKey || event.ctrlKey || (chat && !event.shiftKey));
    if (!sends || event.nativeEvent.isComposing) return;
    event.preventDefault();
    if (may) onWrite();
  };
  const share = async () => {
    const link = new URL(window.location.href);
    link.hash = toFragment(prompt, settings);
    try {
      await navigator.clipboard.writeText(link.href);
      say("The link is copied: prompt and settings are in it.");
    } catch {
      window.history.replaceState(null, "", link.hash);
      say("The link is in the address bar.");
    }
  };

  return (
    <form
      className="rounded-2xl border border-edge/50 bg-sheet shadow-[0_1px_2px_rgb(0_0_0/0.04)] focus-within:border-accent"
      onSubmit={(event) => {
        event.preventDefault();
        if (may) onWrite();
      }}
    >
      <label htmlFor="prompt" className="block px-5 pt-4 text-[0.8125rem] font-semibold tracking-wide text-quiet">
        {chat ? "Your question" : "Prompt"}
      </label>
      <textarea
        id="prompt"
        dir="auto"
        rows={chat ? 2 : 3}
        maxLength={MAX_PROMPT}
        value={prompt}
        placeholder={chat ? "Ask something" : "Begin a text; the model goes on with it"}
        className="field-sizing-content block max-h-80 min-h-20 w-full resize-none bg-transparent px-5 py-2 font-serif text-[1.1875rem] leading-relaxed outline-none placeholder:text-quiet"
        onChange={(event) => onPrompt(event.target.value)}
        onKeyDown={onKeyDown}
      />
      {info && fresh && prompt === "" && (
        <div className="flex flex-wrap gap-2 px-5 pb-2" role="group" aria-label="Examples">
          {examples(info).map((example) => (
            <Button
              key={example}
              variant="outline"
              size="small"
              className="rounded-full font-normal text-quiet hover:text-ink"
              onClick={() => {
                onPrompt(example);
                document.getElementById("prompt")?.focus();
              }}
            >
              {label(example)}
            </Button>
          ))}
        </div>
      )}
      <div className="flex items-center justify-end gap-2 p-3">
        {prompt.length > MAX_PROMPT / 4 && (
          <span className="mr-auto pl-2 text-[0.8125rem] text-quiet tabular-nums">{count(prompt.length)} characters</span>
        )}
        <Tooltip text="Copy a link with this prompt and these settings">
          <Button variant="ghost" size="icon" aria-label="Copy a link" disabled={prompt === ""} onClick={() => void share()}>
            <Share2 aria-hidden />
          </Button>
        </Tooltip>
        {writing ? (
          <Button key="stop" variant="outline" onClick={onStop}>
            <Square aria-hidden className="fill-current" />
            Stop
          </Button>
        ) : (
          <Button key="write" type="submit" disabled={!may}>
            {chat ? <SendHorizontal aria-hidden /> : <PenLine aria-hidden />}
            {chat ? "Ask" : "Write"}
          </Button>
        )}
      </div>
    </form>
  );
}
