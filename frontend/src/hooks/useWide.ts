/* Whether there is room for a column beside the text. */
import { useSyncExternalStore } from "react";

const QUERY = "(min-width: 64rem)";

function listen(changed: () => void): () => void {
  const media = window.matchMedia(QUERY);
  media.addEventListener("change", changed);
  return () => media.removeEventListener("change", changed);
}

export const useWide = (): boolean =>
  useSyncExternalStore(listen, () => window.matchMedia(QUERY).matches);
