import type { ComponentProps } from "react";
import { cn } from "@/lib/cn";

export function Card({ className, ...rest }: ComponentProps<"section">) {
  return <section className={cn("rounded-2xl border border-line bg-sheet", className)} {...rest} />;
}

export function CardTitle({ className, children, ...rest }: ComponentProps<"h2">) {
  return (
    <h2 className={cn("text-[0.8125rem] font-semibold tracking-wide text-quiet", className)} {...rest}>
      {children}
    </h2>
  );
}
