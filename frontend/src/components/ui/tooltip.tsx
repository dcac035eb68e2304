import * as Radix from "@radix-ui/react-tooltip";
import type { ReactNode } from "react";

export const TooltipProvider = Radix.Provider;

/** A word on what it is put round; the thing itself must have a name of its own. */
export function Tooltip({ text, children }: { text: string; children: ReactNode }) {
  return (
    <Radix.Root>
      <Radix.Trigger asChild>{children}</Radix.Trigger>
      <Radix.Content
        sideOffset={6}
        collisionPadding={8}
        className="z-50 max-w-72 rounded-md bg-ink px-2.5 py-1.5 font-sans text-[0.8125rem] leading-snug font-normal wrap-anywhere whitespace-normal text-paper shadow-lg"
      >
        {text}
      </Radix.Content>
    </Radix.Root>
  );
}
