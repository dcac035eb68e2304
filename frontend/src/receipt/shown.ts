/* Values of Candid as the file of a receipt shows them: what is none is left out of a record. */
import { IDL } from "@icp-sdk/core/candid";
import { Float, type Json } from "@/receipt/document";

class Shown extends IDL.Visitor<unknown, Json> {
  override visitBool(_type: IDL.BoolClass, value: unknown): Json {
    return value as boolean;
  }
  override visitText(_type: IDL.TextClass, value: unknown): Json {
    return value as string;
  }
  override visitFloat(_type: IDL.FloatClass, value: unknown): Json {
    return new Float(value as number);
  }
  override visitFixedNat(_type: IDL.FixedNatClass, value: unknown): Json {
    return BigInt(value as number | bigint);
  }
  override visitVec<T>(_type: IDL.VecClass<T>, one: IDL.Type<T>, value: unknown): Json {
    return Array.from(value as ArrayLike<unknown>, (item) => one.accept(this, item));
  }
  override visitOpt<T>(_type: IDL.OptClass<T>, inner: IDL.Type<T>, value: unknown): Json {
    const [given] = value as unknown[];
    return given === undefined ? null : inner.accept(this, given);
  }
  override visitRecord(_type: IDL.RecordClass, fields: [string, IDL.Type][], value: unknown): Json {
    const given = value as Record<string, unknown>;
    const told = fields.map(([name, type]): [string, Json] => [name, type.accept(this, given[name])]);
    return Object.fromEntries(told.filter(([, one]) => one !== null));
  }
}

export const shown = (type: IDL.Type, value: unknown): Json => type.accept(new Shown(), value);
