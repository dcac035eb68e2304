/* Settings into Candid and links, and back. */
import { describe, expect, it } from "vitest";
import { defaults, fromFragment, LIMITS, seedFault, stopFault, toFragment, toOptions } from "@/lib/settings";

const usual = defaults(null);

describe("links", () => {
  it("carry a prompt and all settings", () => {
    const settings = { ...usual, length: 42, temperature: 0.35, topN: 7, topP: 0.9, seed: "18446744073709551615", stop: "\n\nA & b=c#\nשלום" };
    const prompt = "ROMEO: <b>&amp;</b> 👩‍🚀\n% # + ש";
    expect(fromFragment(`#${toFragment(prompt, settings)}`)).toEqual({ prompt, settings });
  });
  it("leave out what makes no sense", () => {
    const found = fromFragment("#prompt=x&length=-3&temperature=9&top_n=abc&top_p=NaN&seed=1e9&stop=" + "s".repeat(300));
    expect(found).toEqual({ prompt: "x", settings: { topN: null, seed: "", stop: "" } });
    expect(fromFragment("#top_n=3")).toBeNull();
    expect(fromFragment("")).toBeNull();
  });
  it("cut a prompt that nobody could have typed", () => {
    expect(fromFragment(`#prompt=${"x".repeat(30_000)}`)?.prompt).toHaveLength(20_000);
  });
});

describe("options", () => {
  it("leave to the canister what is at its default", () => {
    expect(toOptions(usual)).toEqual({ max_new_tokens: [100], temperature: [0.7] });
  });
  it("carry what was chosen", () => {
    const options = toOptions({ ...usual, topN: 5, topP: 0.5, repetitionPenalty: 1.2, seed: " 9007199254740993 ", stop: "a\n\nb" });
    expect([options.top_k, options.top_p, options.repetition_penalty]).toEqual([[5], [0.5], [1.2]]);
    expect(options.seed).toEqual([9007199254740993n]);
    expect(options.stop).toEqual([["a", "b"]]);
  });
  it("are refused in words before anybody is asked", () => {
    expect(seedFault("18446744073709551616")).toMatch(/whole number/);
    expect(seedFault("-1")).toMatch(/whole number/);
    expect(seedFault("")).toBeNull();
    expect(stopFault({ ...usual, stop: Array(17).fill("x").join("\n") })).toMatch(/16/);
    expect(stopFault({ ...usual, stop: "é".repeat(129) })).toMatch(/256 bytes/);
  });
  it("have limits that the sliders can reach", () => {
    for (const { min, max } of Object.values(LIMITS)) expect(min).toBeLessThan(max);
  });
});
