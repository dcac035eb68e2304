/* The form of a receipt's file: numbers as they are, and nothing taken for granted. */
import { describe, expect, it } from "vitest";
import { canonical, Float, parse, Unreadable, write } from "@/receipt/document";
import { read } from "@/receipt/file";

describe("numbers", () => {
  it("keep their 64 bits, and their point", () => {
    expect(write({ seed: 18446744073709551615n, temperature: new Float(1), top_p: new Float(1e-7) })).toBe(
      '{\n "seed": 18446744073709551615,\n "temperature": 1.0,\n "top_p": 1e-7\n}',
    );
    expect(parse("[18446744073709551615, 1.0, -0.5e3]")).toEqual([18446744073709551615n, new Float(1), new Float(-500)]);
    expect(canonical(parse('{"b": 1.0, "a": 1}'))).toBe('{"a":1,"b":1.0}');
  });
  it("survive writing and reading", () => {
    const value = { text: 'é "\\\n\u2028 👩‍🚀', list: [], none: null, nested: { yes: true, no: [false] } };
    expect(parse(write(value))).toEqual(value);
  });
});

describe("a file that is none", () => {
  it.each(["", "{", "[1,]", '{"a":1,"a":2}', "01", "NaN", '"\u0001"', "true false", "[".repeat(100), '{"a" 1}', "'a'"])(
    "%j",
    (text) => expect(() => parse(text)).toThrow(Unreadable),
  );
  it.each(["[]", "{}", '{"icgpt_receipt": 2}', '{"icgpt_receipt": 1}', '{"icgpt_receipt": 1.0}'])("%s", (text) =>
    expect(() => read(text)).toThrow(Unreadable),
  );
});
