import { Slot } from "@radix-ui/react-slot";
import { cva, type VariantProps } from "class-variance-authority";
import type { ComponentProps } from "react";
import { cn } from "@/lib/cn";

const looks = cva(
  "inline-flex shrink-0 items-center justify-center gap-2 rounded-lg font-medium whitespace-nowrap transition-colors select-none disabled:pointer-events-none disabled:opacity-45 [&_svg]:size-4 [&_svg]:shrink-0",
  {
    variants: {
      variant: {
        primary: "bg-accent text-on-accent hover:bg-accent-strong",
        outline: "border border-edge/60 bg-sheet text-ink hover:bg-sunken",
        ghost: "text-quiet hover:bg-sunken hover:text-ink",
        warn: "border border-warn/50 bg-sheet text-warn hover:bg-warn-wash",
      },
      size: {
        normal: "h-10 px-4",
        small: "h-9 px-2.5 text-[0.8125rem]",
        icon: "size-10",
      },
    },
    defaultVariants: { variant: "primary", size: "normal" },
  },
);

interface Props extends ComponentProps<"button">, VariantProps<typeof looks> {
  asChild?: boolean;
}

export function Button({ className, variant, size, asChild = false, ...rest }: Props) {
  const Part = asChild ? Slot : "button";
  return <Part type={asChild ? undefined : "button"} className={cn(looks({ variant, size }), className)} {...rest} />;
}
