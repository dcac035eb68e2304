import * as Radix from "@radix-ui/react-collapsible";
import { ChevronRight } from "lucide-react";
import type { ReactNode } from "react";
import { cn } from "@/lib/cn";

interface Props {
  title: ReactNode;
  open?: boolean;
  className?: string;
  children: ReactNode;
}

/** A title that shows and hides what is below it. */
export function Disclosure({ title, open = false, className, children }: Props) {
  return (
    <Radix.Root defaultOpen={open} className={className}>
      <Radix.Trigger className="group flex min-h-10 w-full items-center gap-1.5 rounded-md text-left font-medium">
        <ChevronRight aria-hidden className={cn("size-4 text-quiet transition-transform", "group-data-[state=open]:rotate-90")} />
        {title}
      </Radix.Trigger>
      <Radix.Content>{children}</Radix.Content>
    </Radix.Root>
  );
}
