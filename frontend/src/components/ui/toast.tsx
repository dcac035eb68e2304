import * as Radix from "@radix-ui/react-toast";
import { createContext, useCallback, useContext, useState, type ReactNode } from "react";

type Say = (text: string) => void;
const Saying = createContext<Say>(() => undefined);

/** Says something in passing, at the lower edge of the page. */
export const useToast = (): Say => useContext(Saying);

export function Toasts({ children }: { children: ReactNode }) {
  const [said, setSaid] = useState<{ id: number; text: string } | null>(null);
  const say = useCallback<Say>((text) => setSaid((before) => ({ id: (before?.id ?? 0) + 1, text })), []);
  return (
    <Radix.Provider duration={3500} swipeDirection="down">
      <Saying value={say}>{children}</Saying>
      {said && (
        <Radix.Root
          key={said.id}
          className="rounded-lg bg-ink px-4 py-2.5 text-paper shadow-lg"
          onOpenChange={(open) => !open && setSaid(null)}
        >
          <Radix.Title>{said.text}</Radix.Title>
        </Radix.Root>
      )}
      <Radix.Viewport className="fixed bottom-6 left-1/2 z-50 w-max max-w-[90vw] -translate-x-1/2 outline-none" />
    </Radix.Provider>
  );
}
