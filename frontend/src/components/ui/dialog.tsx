import { X } from "lucide-react";
import { useEffect, useId, useRef, type ReactNode } from "react";
import { Button } from "@/components/ui/button";
import { Toasts } from "@/components/ui/toast";

interface Props {
  title: string;
  children: ReactNode;
  onClose: () => void;
}

/** The browser's own modal dialog: it keeps the focus inside and closes with Escape. */
export function Dialog({ title, children, onClose }: Props) {
  const ref = useRef<HTMLDialogElement>(null);
  const id = useId();
  useEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
  return (
    <dialog
      ref={ref}
      aria-labelledby={id}
      onClose={onClose}
      className="m-auto max-h-[90dvh] w-[min(44rem,94vw)] overflow-y-auto rounded-2xl border border-line bg-sheet text-ink shadow-2xl"
    >
      <div className="sticky top-0 z-10 flex items-center justify-between gap-4 border-b border-line bg-sheet py-3 pr-3 pl-6">
        <h2 id={id} className="text-base font-semibold">
          {title}
        </h2>
        <Button variant="ghost" size="icon" aria-label="Close" onClick={() => ref.current?.close()}>
          <X aria-hidden />
        </Button>
      </div>
      {/* Those of the page would be said behind the dialog. */}
      <Toasts>
        <div className="p-6">{children}</div>
      </Toasts>
    </dialog>
  );
}
