/* Errors in words, with what to do. */
import { describe, expect, it } from "vitest";
import { Refused, troubleOf } from "@/lib/trouble";

const rejected = (rejectMessage: string, rejectErrorCode?: string) =>
  Object.assign(new Error("The replica returned a rejection error"), { code: { rejectMessage, rejectErrorCode } });

describe("trouble", () => {
  it.each([
    [rejected("Canister is stopped", "IC0508"), "stopped", /start it again/],
    [rejected("out of cycles", "IC0207"), "refused", /top it up/],
    [new TypeError("Failed to fetch"), "unreachable", /icgpt network start/],
    [new Error("Signature verification failed"), "unproven", /clock/],
    [new Refused("no model is set up: upload one"), "no-model", /upload/],
    [new Refused("2vxsx-fae may not use this model: a manager can add it"), "refused", /Sign in/],
    [new Refused("the prompt is empty"), "refused", /prompt/],
    ["something else", "other", /again/],
  ])("%s", (error, kind, advice) => {
    const found = troubleOf(error);
    expect(found.kind).toBe(kind);
    expect(found.advice).toMatch(advice);
    expect(found.title).toMatch(/^[A-Z0-9].*[.!?…]$/s);
  });
  it("leaves the platform's frame out", () => {
    const framed = "Canister rejected with message: 'the queue is full'. Consider gracefully handling";
    expect(troubleOf(rejected(framed)).title).toBe("The queue is full.");
  });
});
