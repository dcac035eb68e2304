/*
 * The file of a receipt, as `icgpt verify` reads it (docs/receipts.md). Its numbers may have 64 bits,
 * which JSON.parse would round, and a reader in Python tells 1 from 1.0: so it is written and read
 * here, with whole numbers as bigint and other numbers as Float.
 */

export const VERSION = 1n;
export const MAX_BYTES = 16 * 1024 * 1024;
const MAX_DEPTH = 32;

/** A number that is written with a point even when it is whole. */
export class Float {
  constructor(readonly value: number) {}
}

export type Json = null | boolean | string | bigint | Float | Json[] | { [name: string]: Json };

/** A call as the browser keeps it: bytes in hexadecimal, the expiry as text. */
export interface EvidenceJson {
  arg: string;
  sender: string;
  ingress_expiry: string;
  nonce: string;
  certificate: string;
}

export class Unreadable extends Error {}

export function write(value: Json, indent = ""): string {
  if (value === null || typeof value === "boolean") return String(value);
  if (typeof value === "string") return JSON.stringify(value);
  if (typeof value === "bigint") return value.toString();
  const deeper = `${indent} `;
  if (value instanceof Float) {
    const text = String(value.value);
    return /[.e]/.test(text) ? text : `${text}.0`;
  }
  if (Array.isArray(value)) {
    if (value.length === 0) return "[]";
    return `[\n${value.map((one) => deeper + write(one, deeper)).join(",\n")}\n${indent}]`;
  }
  const fields = Object.entries(value).map(
    ([name, one]) => `${deeper}${JSON.stringify(name)}: ${write(one, deeper)}`,
  );
  return fields.length === 0 ? "{}" : `{\n${fields.join(",\n")}\n${indent}}`;
}

/** One text for equal values, whatever the order of their fields. */
export function canonical(value: Json): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object" || value instanceof Float) return write(value);
  const names = Object.keys(value).sort();
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(value[name] ?? null)}`).join(",")}}`;
}

export function parse(text: string): Json {
  const reader = new Reader(text);
  const value = reader.value(0);
  reader.end();
  return value;
}

const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const STRING = /"(?:[^"\\]|\\.)*"/y;
const SPACE = /[ \t\r\n]*/y;

class Reader {
  private at = 0;

  constructor(private readonly text: string) {}

  value(depth: number): Json {
    if (depth > MAX_DEPTH) throw new Unreadable("it is nested too deeply");
    this.take(SPACE);
    switch (this.text[this.at]) {
      case "{":
        return this.fields(depth);
      case "[":
        return this.items(depth);
      case '"':
        return this.string();
      case "t":
        return this.word("true", true);
      case "f":
        return this.word("false", false);
      case "n":
        return this.word("null", null);
      default:
        return this.number();
    }
  }

  end(): void {
    this.take(SPACE);
    if (this.at !== this.text.length) throw invalid();
  }

  private fields(depth: number): Json {
    const found = new Map<string, Json>();
    this.list("}", () => {
      this.take(SPACE);
      const name = this.string();
      if (found.has(name)) throw new Unreadable("a field stands there twice");
      this.take(SPACE);
      this.expect(":");
      found.set(name, this.value(depth + 1));
    });
    return Object.fromEntries(found);
  }

  private items(depth: number): Json {
    const found: Json[] = [];
    this.list("]", () => found.push(this.value(depth + 1)));
    return found;
  }

  private list(closing: string, one: () => void): void {
    this.at += 1;
    this.take(SPACE);
    if (this.text[this.at] === closing) {
      this.at += 1;
      return;
    }
    for (;;) {
      one();
      this.take(SPACE);
      if (this.text[this.at] === closing) break;
      this.expect(",");
    }
    this.at += 1;
  }

  private string(): string {
    const found = this.take(STRING);
    if (found === null) throw invalid();
    try {
      return JSON.parse(found[0]) as string;
    } catch {
      throw invalid();
    }
  }

  private number(): Json {
    const found = this.take(NUMBER);
    if (found === null) throw invalid();
    const whole = found[1] === undefined && found[2] === undefined;
    return whole ? BigInt(found[0]) : new Float(Number(found[0]));
  }

  private word(word: string, value: Json): Json {
    if (!this.text.startsWith(word, this.at)) throw invalid();
    this.at += word.length;
    return value;
  }

  private take(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.at;
    const found = pattern.exec(this.text);
    if (found !== null) this.at = pattern.lastIndex;
    return found;
  }

  private expect(letter: string): void {
    if (this.text[this.at] !== letter) throw invalid();
    this.at += 1;
  }
}

const invalid = (): Unreadable => new Unreadable("it is not valid JSON");
