import { StrictMode } from "react";
import { createRoot } from "react-dom/client";
import { App } from "@/App";
import { Toasts } from "@/components/ui/toast";
import { TooltipProvider } from "@/components/ui/tooltip";
import "@/index.css";

const root = document.getElementById("root");
if (root === null) throw new Error("the page has no place for the application");
createRoot(root).render(
  <StrictMode>
    <TooltipProvider delayDuration={300}>
      <Toasts>
        <App />
      </Toasts>
    </TooltipProvider>
  </StrictMode>,
);
