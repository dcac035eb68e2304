//! What the subnet vouches for: one hash tree, whose root is the canister's certified data.
//!
//! | path | value |
//! |---|---|
//! | `http_expr` | what gateways check HTTP responses by: see [`crate::http`] |
//! | `jobs/<id>` | SHA-256 of a finished job's receipt |
//! | `model` | SHA-256 that names the running model |
//!
//! A query shows the subnet's certificate of the root and a witness: the part of the tree that
//! leads from the root to the asked leaf, in the CBOR of the interface specification
//! (<https://internetcomputer.org/docs/references/ic-interface-spec#certification>). Labels of one
//! level stand in order.

use std::cell::RefCell;

use ic_certification::{
    AsHashTree, Hash, HashTree, HashTreeNode, RbTree, fork, fork_hash, labeled, labeled_hash, leaf,
    leaf_hash, pruned,
};

#[derive(Default)]
struct Tree {
    /// Root of the part below `http_expr`, that label included.
    http: Hash,
    jobs: RbTree<[u8; 32], Hash>,
    model: Hash,
}

impl Tree {
    fn root_hash(&self) -> Hash {
        fork_hash(&self.http, &self.own_hash())
    }

    /// Root of all but the part for gateways.
    fn own_hash(&self) -> Hash {
        fork_hash(
            &labeled_hash(b"jobs", &self.jobs.root_hash()),
            &labeled_hash(b"model", &leaf_hash(&self.model)),
        )
    }

    fn witness(&self, job: &[u8; 32]) -> HashTree {
        let jobs = labeled("jobs", self.jobs.witness(job));
        let model = labeled("model", leaf(self.model));
        fork(pruned(self.http), fork(jobs, model))
    }

    fn witness_with(&self, http: HashTree) -> HashTree {
        fork(http, pruned(self.own_hash()))
    }
}

thread_local! {
    static TREE: RefCell<Tree> = RefCell::default();
}

/// Changes the tree; the new root is certified when the message has ended.
fn change(work: impl FnOnce(&mut Tree)) {
    let root = TREE.with_borrow_mut(|tree| {
        work(tree);
        tree.root_hash()
    });
    ic_cdk::api::certified_data_set(root);
}

/// Replaces everything, after an upgrade.
pub fn set(model: Hash, jobs: impl Iterator<Item = ([u8; 32], Hash)>) {
    change(|tree| {
        tree.model = model;
        tree.jobs = jobs.fold(RbTree::default(), |mut tree, (id, receipt)| {
            tree.insert(id, receipt);
            tree
        });
    });
}

/// Sets the part for gateways, by its root.
pub fn set_http(root: Hash) {
    change(|tree| tree.http = root);
}

/// The whole tree with nothing shown but the part for gateways, which has to be the one whose root
/// was set.
pub fn witness_with(http: HashTree) -> HashTree {
    TREE.with_borrow(|tree| tree.witness_with(http))
}

/// Names the running model.
pub fn set_model(model: Hash) {
    change(|tree| tree.model = model);
}

/// Adds a finished job, and takes out those that are no longer kept.
pub fn add_job(id: [u8; 32], receipt: Hash, forgotten: &[[u8; 32]]) {
    change(|tree| {
        tree.jobs.insert(id, receipt);
        for id in forgotten {
            tree.jobs.delete(id);
        }
    });
}

/// Certifies the root again. A replica that was killed may know an older one.
pub fn refresh() {
    change(|_| ());
}

/// The subnet's certificate and the witness of a job. There is a certificate in queries only.
pub fn certificate(job: &[u8; 32]) -> Option<(Vec<u8>, Vec<u8>)> {
    let certificate = ic_cdk::api::data_certificate()?;
    let witness = TREE.with_borrow(|tree| cbor(&tree.witness(job)));
    Some((certificate, witness))
}

/// A tree in CBOR: an array of the node's kind and what belongs to it.
fn cbor(tree: &HashTree) -> Vec<u8> {
    let mut out = vec![0xd9, 0xd9, 0xf7];
    node(tree.as_ref(), &mut out);
    out
}

fn node(of: &HashTreeNode, out: &mut Vec<u8>) {
    match of {
        HashTreeNode::Empty() => out.extend([0x81, 0]),
        HashTreeNode::Fork(halves) => {
            out.extend([0x83, 1]);
            node(&halves.0, out);
            node(&halves.1, out);
        }
        HashTreeNode::Labeled(label, below) => {
            out.extend([0x83, 2]);
            bytes(label.as_bytes(), out);
            node(below, out);
        }
        HashTreeNode::Leaf(value) => {
            out.extend([0x82, 3]);
            bytes(value, out);
        }
        HashTreeNode::Pruned(hash) => {
            out.extend([0x82, 4]);
            bytes(hash, out);
        }
    }
}

/// A byte string; labels, values and hashes have fewer than 256 bytes.
fn bytes(value: &[u8], out: &mut Vec<u8>) {
    match value.len() {
        short @ 0..24 => out.push(0x40 | short as u8),
        long => out.extend([0x58, long as u8]),
    }
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> HashTree {
        labeled("http_expr", leaf([3]))
    }

    fn tree(jobs: u8) -> Tree {
        let mut tree = Tree {
            http: part().digest(),
            model: [9; 32],
            ..Tree::default()
        };
        for job in 0..jobs {
            tree.jobs.insert([job; 32], [job + 100; 32]);
        }
        tree
    }

    #[test]
    fn a_witness_has_the_root_of_the_tree_and_shows_its_job() {
        for jobs in 0..9 {
            let tree = tree(jobs);
            for job in 0..jobs {
                let witness = tree.witness(&[job; 32]);
                assert_eq!(witness.digest(), tree.root_hash());
                let found = witness.lookup_path([&b"jobs"[..], &[job; 32]]);
                assert_eq!(
                    found,
                    ic_certification::LookupResult::Found(&[job + 100; 32])
                );
            }
            let absent = tree.witness(&[200; 32]);
            assert_eq!(absent.digest(), tree.root_hash());
            let for_gateways = tree.witness_with(part());
            assert_eq!(for_gateways.digest(), tree.root_hash());
            let found = for_gateways.lookup_path([&b"http_expr"[..]]);
            assert_eq!(found, ic_certification::LookupResult::Found(&[3]));
        }
    }

    #[test]
    fn cbor_is_that_of_the_specification() {
        let tree = fork(
            labeled("a", leaf([1, 2])),
            fork(ic_certification::empty(), pruned([7; 32])),
        );
        let mut wanted = vec![
            0xd9, 0xd9, 0xf7, 0x83, 1, 0x83, 2, 0x41, b'a', 0x82, 3, 0x42, 1, 2, 0x83, 1, 0x81, 0,
            0x82, 4, 0x58, 32,
        ];
        wanted.extend([7; 32]);
        assert_eq!(cbor(&tree), wanted);
    }
}
