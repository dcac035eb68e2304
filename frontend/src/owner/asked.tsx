/* Questions to the canister, and what stands there until they are answered. */
import { LoaderCircle } from "lucide-react";
import { useCallback, useEffect, useState } from "react";
import { troubleOf } from "@/lib/trouble";

type Answer<T> = { value: T } | { fault: string } | null;

/** What a question was answered with, and how to ask it again. */
export function useAsked<T>(ask: () => Promise<T>): [Answer<T>, () => void] {
  const [answer, setAnswer] = useState<Answer<T>>(null);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    let left = false;
    ask().then(
      (value) => left || setAnswer({ value }),
      (error: unknown) => left || setAnswer({ fault: troubleOf(error).title }),
    );
    return () => {
      left = true;
    };
  }, [ask, turn]);
  return [answer, useCallback(() => setTurn((before) => before + 1), [])];
}

/** What stands in the place of an answer that is not there, or is none. */
export function Unanswered({ fault }: { fault: string | null }) {
  if (fault !== null) return <p className="text-warn">{fault}</p>;
  return (
    <p className="flex items-center gap-2 text-quiet">
      <LoaderCircle aria-hidden className="size-4 animate-spin" /> Asking the canister…
    </p>
  );
}
