// What agent-js does with a canister, with verification of certificates and query signatures on.
// Run with: node agent.mjs PACKAGES URL CANISTER LOGIN, where PACKAGES is "icp-sdk" or "dfinity" and
// LOGIN is JSON of a session's secret key and its chain of delegations, as a login leaves them.
// Prints one JSON document of what each step gave.
const [packages, host, canisterId, login] = process.argv.slice(2);
const core = packages === 'icp-sdk';
const { Actor, CanisterStatus, HttpAgent } = await import(core ? '@icp-sdk/core/agent' : '@dfinity/agent');
const { Ed25519KeyIdentity, ECDSAKeyIdentity, DelegationChain, DelegationIdentity } = await import(
  core ? '@icp-sdk/core/identity' : '@dfinity/identity');
const { Principal } = await import(core ? '@icp-sdk/core/principal' : '@dfinity/principal');
const secp256k1 = core ? await import('@icp-sdk/core/identity/secp256k1') : undefined;

const idl = ({ IDL }) => IDL.Service({
  get: IDL.Func([], [IDL.Nat32], ['query']),
  inc: IDL.Func([], [IDL.Nat32], []),
  boom: IDL.Func([], [IDL.Nat32], []),
  nothing: IDL.Func([], [IDL.Nat32], ['query']),
});
const agentOf = (identity, more = {}) =>
  HttpAgent.create({ host, identity, shouldFetchRootKey: true, verifyQuerySignatures: true, ...more });
const actorOf = (agent) => Actor.createActor(idl, { agent, canisterId });
const outcome = async (work) => {
  try {
    return { value: await work() };
  } catch (error) {
    return { error: `${error.name}: ${error.message}`.slice(0, 500) };
  }
};
const results = {};

const identities = {
  anonymous: undefined,
  ed25519: Ed25519KeyIdentity.generate(),
  p256: await ECDSAKeyIdentity.generate(),
};
if (secp256k1) identities.secp256k1 = secp256k1.Secp256k1KeyIdentity.generate();
const session = Ed25519KeyIdentity.generate();
const later = new Date(Date.now() + 3_600_000);
const targets = { targets: [Principal.fromText(canisterId)] };
const chain = await DelegationChain.create(identities.ed25519, session.getPublicKey(), later, targets);
const { secret, chain: signedByCanister } = JSON.parse(login);
const sessionOfLogin = Ed25519KeyIdentity.fromSecretKey(Uint8Array.from(Buffer.from(secret, 'hex')));
const loginChain = DelegationChain.fromJSON(JSON.stringify(signedByCanister));
identities.login = DelegationIdentity.fromDelegation(sessionOfLogin, loginChain);
identities.delegated = DelegationIdentity.fromDelegation(session, chain);
for (const [name, identity] of Object.entries(identities)) {
  const actor = actorOf(await agentOf(identity));
  results[name] = await outcome(async () => [await actor.get(), await actor.inc(), await actor.get()]);
}

const actor = actorOf(await agentOf(identities.ed25519));
results.boom = await outcome(() => actor.boom());
results.nothing = await outcome(() => actor.nothing());
const wrong = new Uint8Array(133);
wrong.set(new Uint8Array((await agentOf()).rootKey));
wrong[120] ^= 1;
const distrustful = actorOf(await agentOf(identities.ed25519, { rootKey: wrong, shouldFetchRootKey: false }));
results.wrongKeyUpdate = await outcome(() => distrustful.inc());
results.wrongKeyQuery = await outcome(() => distrustful.get());
results.many = await outcome(async () => (await Promise.all(Array.from({ length: 20 }, () => actor.inc()))).length);

const managementIdl = ({ IDL }) => {
  const id = IDL.Record({ canister_id: IDL.Principal });
  const create = IDL.Record({ amount: IDL.Opt(IDL.Nat) });
  const running = IDL.Variant({ running: IDL.Null, stopping: IDL.Null, stopped: IDL.Null });
  return IDL.Service({
    provisional_create_canister_with_cycles: IDL.Func([create], [id], []),
    canister_status: IDL.Func([id], [IDL.Record({ status: running })], []),
  });
};
results.management = await outcome(async () => {
  const agent = await agentOf(identities.ed25519);
  const management = Actor.createActor(managementIdl, {
    agent,
    canisterId: Principal.managementCanister(),
    callTransform: (method, [argument]) => ({
      effectiveCanisterId: argument.canister_id ?? Principal.managementCanister(),
    }),
  });
  const { canister_id } = await management.provisional_create_canister_with_cycles({ amount: [] });
  const { status } = await management.canister_status({ canister_id });
  return Object.keys(status)[0];
});
results.metadata = await outcome(async () => {
  const agent = await agentOf(identities.ed25519);
  const status = await CanisterStatus.request({
    canisterId: Principal.fromText(canisterId), agent, paths: ['time', 'controllers', 'module_hash', 'subnet'] });
  return { hash: status.get('module_hash'), controllers: status.get('controllers').length };
});
console.log(JSON.stringify(results, (_, value) => (typeof value === 'bigint' ? Number(value) : value)));
