/* A card beside the text; where there is no room for that, a title which opens it. */
import { useId, type ReactNode } from "react";
import { Card, CardTitle } from "@/components/ui/card";
import { Disclosure } from "@/components/ui/disclosure";
import { useWide } from "@/hooks/useWide";

interface Props {
  title: string;
  /** What stands beside the title while the card is closed. */
  brief?: string;
  children: ReactNode;
}

export function Panel({ title, brief, children }: Props) {
  const wide = useWide();
  const id = useId();
  if (!wide) {
    const shown = (
      <>
        <span>{title}</span>
        <span className="ml-auto min-w-0 truncate pl-3 text-[0.8125rem] font-normal text-quiet">{brief}</span>
      </>
    );
    return (
      <Card className="px-4 py-1" aria-label={title}>
        <Disclosure title={shown}>
          <div className="px-1 pt-2 pb-4">{children}</div>
        </Disclosure>
      </Card>
    );
  }
  return (
    <Card className="px-5 py-4" aria-labelledby={id}>
      <CardTitle id={id} className="mb-2">
        {title}
      </CardTitle>
      {children}
    </Card>
  );
}
