// Sets the chosen theme before anything is painted; without a choice the system's is taken.
try {
  const theme = localStorage.getItem("icgpt.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // A browser that keeps nothing has no choice to restore.
}
