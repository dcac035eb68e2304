/* Lines of /metrics. */
import { describe, expect, it } from "vitest";
import { memoryOf, parsed } from "@/lib/figures";

const TEXT = `# HELP icgpt_cycles Cycles that the canister has.
# TYPE icgpt_cycles gauge
icgpt_cycles 2999812345678
icgpt_info{version="0.1.0",family="a } 7"} 1
icgpt_tokens_total{kind="completion"} 12
icgpt_heap_bytes 65536
icgpt_stable_bytes 1.5e6
other_cycles 1
icgpt_ready yes
`;

describe("figures", () => {
  it("are read line by line; what is none is left out", () => {
    expect(parsed(TEXT)).toEqual({
      cycles: 2999812345678,
      'info{version="0.1.0",family="a } 7"}': 1,
      'tokens_total{kind="completion"}': 12,
      heap_bytes: 65536,
      stable_bytes: 1_500_000,
    });
    expect(parsed("")).toEqual({});
  });
  it("tell the memory when both parts of it are there", () => {
    expect(memoryOf(parsed(TEXT))).toBe(1_565_536);
    expect(memoryOf({ heap_bytes: 1 })).toBeNull();
  });
});
