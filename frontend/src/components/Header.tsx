/* The head of the page: what this is, who asks, the theme, and the way to the other views. */
import { FileCheck2, LogIn, LogOut, Moon, SlidersHorizontal, Sun } from "lucide-react";
import { lazy, Suspense, useState } from "react";
import { Button } from "@/components/ui/button";
import { useToast } from "@/components/ui/toast";
import { Tooltip } from "@/components/ui/tooltip";
import { useFound } from "@/hooks/useFound";
import type { Session } from "@/hooks/useSession";
import type { Connection } from "@/lib/connection";
import { brief } from "@/lib/format";
import { isDark, setTheme } from "@/lib/theme";
import { troubleOf } from "@/lib/trouble";

const OwnerDialog = lazy(() => import("@/owner/OwnerDialog"));
const VerifyDialog = lazy(() => import("@/receipt/VerifyDialog"));

/** What the caller may do beyond having the model write. */
const roleOf = (connection: Connection) => connection.role();

export function Header({ session, onModel }: { session: Session; onModel: () => void }) {
  const say = useToast();
  const [dark, setDark] = useState(isDark);
  const [verifying, setVerifying] = useState(false);
  const [managing, setManaging] = useState(false);
  const role = useFound(session.connection, roleOf);
  const attempt = (action: () => Promise<void>) => {
    action().catch((error: unknown) => say(troubleOf(error).title));
  };
  return (
    <header className="flex items-center justify-between gap-4 py-5 sm:py-7">
      <h1 className="font-serif text-2xl font-medium tracking-tight">icgpt</h1>
      <div className="flex items-center gap-1">
        {role !== null && (
          <Button variant="ghost" className="px-2.5" onClick={() => setManaging(true)}>
            <SlidersHorizontal aria-hidden />
            <span className="max-sm:sr-only">Manage</span>
          </Button>
        )}
        <Tooltip text="Check a receipt">
          <Button variant="ghost" className="px-2.5" onClick={() => setVerifying(true)}>
            <FileCheck2 aria-hidden />
            <span className="max-sm:sr-only">Verify</span>
          </Button>
        </Tooltip>
        <Button
          variant="ghost"
          size="icon"
          aria-label={dark ? "Light theme" : "Dark theme"}
          onClick={() => {
            setTheme(dark ? "light" : "dark");
            setDark(!dark);
          }}
        >
          {dark ? <Sun aria-hidden /> : <Moon aria-hidden />}
        </Button>
        {session.principal === null ? (
          <Button
            variant="outline"
            size="small"
            className="h-10 px-3"
            disabled={session.connection === null}
            onClick={() => attempt(session.signIn)}
          >
            <LogIn aria-hidden /> Sign in
          </Button>
        ) : (
          <Tooltip text={session.principal}>
            <Button variant="outline" size="small" className="h-10 px-3" aria-label={`Sign out ${session.principal}`} onClick={() => attempt(session.signOut)}>
              <span className="font-mono max-sm:hidden">{brief(session.principal, 5)}</span>
              <LogOut aria-hidden />
            </Button>
          </Tooltip>
        )}
      </div>
      {managing && session.connection && (
        <Suspense>
          <OwnerDialog
            connection={session.connection}
            controller={role === "controller"}
            onModel={onModel}
            onClose={() => setManaging(false)}
          />
        </Suspense>
      )}
      {verifying && (
        <Suspense>
          <VerifyDialog session={session} onClose={() => setVerifying(false)} />
        </Suspense>
      )}
    </header>
  );
}
