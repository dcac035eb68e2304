/* Light or dark: as the system has it, until somebody chooses. */

export function isDark(): boolean {
  const chosen = document.documentElement.dataset["theme"];
  if (chosen !== undefined) return chosen === "dark";
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

export function setTheme(theme: "light" | "dark"): void {
  document.documentElement.dataset["theme"] = theme;
  try {
    localStorage.setItem("icgpt.theme", theme);
  } catch {
    // It holds until the page is left.
  }
}
