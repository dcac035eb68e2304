// Whether canisters' HTTP responses hold before the verifier that gateways use.
// Run with: node verify.mjs, in a folder with node_modules. Reads a JSON document on stdin: the root
// key, the canister, both in hexadecimal, and pairs of request and response, the bodies in
// hexadecimal. Prints for each the version of its proof and the status that it vouches for (null for
// what is left open), or the error.
import { readFileSync } from 'node:fs';
import verification from '@dfinity/response-verification';

const { rootKey, canister, pairs } = JSON.parse(readFileSync(0, 'utf8'));
const bytes = (hex) => Uint8Array.from(Buffer.from(hex, 'hex'));
const withBytes = (message) => ({ ...message, body: bytes(message.body) });
const now = BigInt(Date.now()) * 1_000_000n;
const minutes = 60_000_000_000n;

const results = pairs.map(([request, response]) => {
  try {
    const found = verification.verifyRequestResponsePair(
      withBytes(request), withBytes(response), bytes(canister), now, 5n * minutes, bytes(rootKey), 2);
    return { version: found.verificationVersion, status: found.response?.statusCode ?? null };
  } catch (error) {
    return { error: `${error.message ?? error}`.slice(0, 200) };
  }
});
console.log(JSON.stringify(results));
