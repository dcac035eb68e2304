/* The whole page: what is asked and written in the middle, settings and the model beside it. */
import { useCallback, useEffect, useMemo, useState } from "react";
import { Composer } from "@/components/Composer";
import { Feed } from "@/components/Feed";
import { Header } from "@/components/Header";
import { ModelCard } from "@/components/ModelCard";
import { Notice } from "@/components/Notice";
import { SettingsPanel } from "@/components/SettingsPanel";
import { useModel } from "@/hooks/useModel";
import { useOnline } from "@/hooks/useOnline";
import { useRuns } from "@/hooks/useRuns";
import { useSession } from "@/hooks/useSession";
import type { Run } from "@/lib/runs";
import { cn } from "@/lib/cn";
import { defaults, fromFragment, isChat, longest, type Settings } from "@/lib/settings";
import { OFFLINE } from "@/lib/trouble";

export function App() {
  const session = useSession();
  const { connection } = session;
  const { info, trouble, look } = useModel(connection);
  const runs = useRuns(connection, info, look);
  const online = useOnline();

  const [shared] = useState(() => fromFragment(window.location.hash));
  const [prompt, setPrompt] = useState(shared?.prompt ?? "");
  const [chosen, setChosen] = useState<Partial<Settings>>(shared?.settings ?? {});
  const usual = useMemo(() => defaults(info), [info]);
  const settings = useMemo(() => {
    const wanted = { ...usual, ...chosen };
    return { ...wanted, length: Math.min(wanted.length, longest(info)) };
  }, [usual, chosen, info]);

  // The link has done its work; what is changed from here on is not what it says.
  useEffect(() => {
    if (shared !== null) window.history.replaceState(null, "", window.location.pathname + window.location.search);
  }, [shared]);

  const chat = info !== null && isChat(info);
  const ready = info !== null && "ready" in info.setup && info.tokenizer && trouble === null;
  const write = useCallback(() => {
    runs.write(prompt, settings);
    if (chat) setPrompt("");
  }, [runs, prompt, settings, chat]);
  const use = useCallback((run: Run) => {
    setPrompt(run.prompt);
    setChosen(run.settings);
    document.getElementById("prompt")?.focus();
  }, []);
  const notice = online ? (session.trouble ?? trouble) : OFFLINE;

  return (
    <div className="mx-auto flex min-h-dvh max-w-6xl flex-col px-4 sm:px-6 lg:px-8">
      <a
        href="#prompt"
        className="sr-only rounded-md bg-sheet px-3 py-2 focus:not-sr-only focus:fixed focus:top-3 focus:left-3 focus:z-50"
        onClick={(event) => {
          event.preventDefault();
          document.getElementById("prompt")?.focus();
        }}
      >
        Skip to the prompt
      </a>
      <Header session={session} onModel={look} />
      <main className="grid grow content-start gap-x-12 gap-y-8 pb-16 lg:grid-cols-[minmax(0,1fr)_19rem] lg:grid-rows-[auto_1fr]">
        {chat && <Feed runs={runs} session={session} chat onUse={use} />}
        <div className={cn("min-w-0", chat && "self-start lg:sticky lg:bottom-6")}>
          <Notice trouble={notice} info={info} />
          <Composer
            prompt={prompt}
            onPrompt={setPrompt}
            settings={settings}
            info={info}
            ready={ready && online}
            writing={runs.running !== null}
            fresh={!chat || runs.runs.length === 0}
            onWrite={write}
            onStop={runs.stop}
          />
        </div>
        <aside
          className="grid content-start gap-3 lg:col-start-2 lg:row-span-2 lg:row-start-1 lg:gap-6"
          aria-label="Settings and model"
        >
          <SettingsPanel
            settings={settings}
            usual={usual}
            longest={longest(info)}
            onChange={(fields) => setChosen((before) => ({ ...before, ...fields }))}
            onReset={() => setChosen({})}
          />
          <ModelCard info={info} connection={connection} writing={runs.running !== null} />
        </aside>
        {!chat && <Feed runs={runs} session={session} chat={false} onUse={use} />}
      </main>
    </div>
  );
}
