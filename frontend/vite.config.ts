/*
 * How the page is built. `npm run dev` passes calls on to the local network; name the model there
 * with ?canisterId=…
 */
import { fileURLToPath } from "node:url";
import tailwindcss from "@tailwindcss/vite";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";

const network = process.env["ICGPT_NETWORK_URL"] ?? "http://127.0.0.1:4943";

export default defineConfig({
  plugins: [react(), tailwindcss()],
  resolve: { alias: { "@": fileURLToPath(new URL("./src", import.meta.url)) } },
  build: {
    // Data URLs would need a wider Content-Security-Policy.
    assetsInlineLimit: 0,
    manifest: "manifest.json",
    target: "es2022",
  },
  server: { host: "127.0.0.1", proxy: { "/api": network } },
  test: { environment: "jsdom", include: ["tests/**/*.test.{ts,tsx}"] },
});
