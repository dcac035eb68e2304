/* What a request of a conversation carries. */
import { describe, expect, it } from "vitest";
import { closed, idsOf, inTemplate, remembered } from "@/lib/conversation";

const template = {
  prefix: Uint32Array.of(50258, 198),
  suffix: Uint32Array.of(628, 50259, 198),
  stop: Uint32Array.of(50257, 50256),
};
const turn = (own: number, answer: number) => ({ own: Array<number>(own).fill(1), answer: Array<number>(answer).fill(2) });

describe("a conversation", () => {
  it("puts each turn into the template, and ends each answer", () => {
    const own = inTemplate([7], template);
    expect(own).toEqual([50258, 198, 7, 628, 50259, 198]);
    const before = [{ own, answer: closed([9], template) }];
    expect(idsOf(before, own)).toEqual([...own, 9, 50257, ...own]);
    expect(closed([9, 50256], template)).toEqual([9, 50256]);
    expect(closed([], { ...template, stop: new Uint32Array() })).toEqual([]);
  });
  it("leaves out the oldest turns when the context is full", () => {
    const before = [turn(10, 10), turn(5, 5), turn(20, 20)];
    expect(remembered(before, [1], 29, 100)).toHaveLength(3);
    expect(remembered(before, [1], 30, 100)).toHaveLength(2);
    expect(remembered(before, [1], 1000, 100)).toHaveLength(1);
    expect(remembered(before, Array<number>(90).fill(1), 10, 100)).toHaveLength(0);
  });
});
