import * as Radix from "@radix-ui/react-slider";
import { cn } from "@/lib/cn";

interface Props {
  label: string;
  /** The value as it is said and shown. */
  said: string;
  value: number;
  min: number;
  max: number;
  step: number;
  disabled?: boolean;
  className?: string;
  onChange: (value: number) => void;
}

/** A slider with its name and value above it. */
export function Slider({ label, said, value, min, max, step, disabled, className, onChange }: Props) {
  return (
    <div className={cn("grid gap-1", className)}>
      <div className="flex items-baseline justify-between gap-3">
        <span>{label}</span>
        <span className="text-quiet tabular-nums">{said}</span>
      </div>
      <Radix.Root
        className="group relative flex h-7 touch-none items-center select-none data-disabled:opacity-50"
        value={[value]}
        min={min}
        max={max}
        step={step}
        disabled={disabled ?? false}
        onValueChange={([chosen]) => chosen !== undefined && onChange(chosen)}
      >
        <Radix.Track className="relative h-1 grow rounded-full bg-edge/40">
          <Radix.Range className="absolute h-full rounded-full bg-accent" />
        </Radix.Track>
        <Radix.Thumb
          aria-label={label}
          aria-valuetext={said}
          className="block size-5 rounded-full border-2 border-accent bg-sheet shadow-sm transition-transform hover:scale-110 active:scale-110"
        />
      </Radix.Root>
    </div>
  );
}
