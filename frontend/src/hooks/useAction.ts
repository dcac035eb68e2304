/* Something that is done at once when somebody asks for it; what goes wrong is said in a toast. */
import { useState } from "react";
import { useToast } from "@/components/ui/toast";
import { troubleOf } from "@/lib/trouble";

/** Whether an action is under way, and how to begin one. */
export function useAction(): [boolean, (action: () => Promise<void>) => Promise<void>] {
  const say = useToast();
  const [busy, setBusy] = useState(false);
  const begin = async (action: () => Promise<void>) => {
    setBusy(true);
    try {
      await action();
    } catch (error) {
      const { title, advice } = troubleOf(error);
      say(`${title} ${advice}`);
    } finally {
      setBusy(false);
    }
  };
  return [busy, begin];
}
