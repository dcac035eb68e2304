//! From a checkpoint to a packed file. The host reads, writes and hashes; all else is the engine's.

use std::cell::RefCell;

use icgpt_engine::{Checkpoint, Config, Packer, Precision};

use crate::exchange::{give, taken};
use crate::failure::Failure;
use crate::host::{HostFile, HostSink};

/// Pieces of work in a step, of about a megabyte each.
const PIECES: usize = 16;

/// The largest embedding that is held as a whole, in bytes: reading one more often is nothing to a
/// program with a disk, and memory stays small whatever the model.
const MOST_HELD: u64 = 48 << 20;

thread_local! {
    static PACKING: RefCell<Option<(Packer, HostFile)>> = const { RefCell::new(None) };
}

/// The precision whose weights have so many bits.
pub fn precision(bits: u32) -> Result<Precision, Failure> {
    let known = [Precision::F32, Precision::Int16, Precision::Int8];
    let found = known.into_iter().find(|p| p.bytes() * 8 == u64::from(bits));
    found.ok_or(Failure::Misuse("weights have 8, 16 or 32 bits"))
}

/// Begins to pack the safetensors file that the host lends. Takes config.json; gives the length of
/// the packed file, and that of the weights that will be read, 8 bytes each.
#[unsafe(no_mangle)]
pub extern "C" fn pack(len: u64, bits: u32) -> i32 {
    give(|answer| {
        let file = HostFile { len };
        let config = Config::from_json(&taken())?;
        let packer = Packer::new(&config, &Checkpoint::parse(&file)?, precision(bits)?)?;
        let packer = packer.frugal(MOST_HELD);
        answer.extend(packer.len().to_le_bytes());
        answer.extend(packer.total().to_le_bytes());
        PACKING.set(Some((packer, file)));
        Ok(0)
    })
}

/// Goes on; 1 when all is written. Gives how many bytes of weights were read so far. After a failure
/// it can't go on.
#[unsafe(no_mangle)]
pub extern "C" fn pack_on() -> i32 {
    give(|answer| {
        let Some((mut packer, file)) = PACKING.take() else {
            return Err(Failure::Misuse("nothing is being packed"));
        };
        let mut left = PIECES;
        let mut may_continue = || {
            left = left.saturating_sub(1);
            left > 0
        };
        let done = packer.step(&file, &mut HostSink, &mut may_continue)?;
        answer.extend(packer.done().to_le_bytes());
        if done {
            packer.finish()?;
        } else {
            PACKING.set(Some((packer, file)));
        }
        Ok(done.into())
    })
}
