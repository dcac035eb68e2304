//! A model in memory: from a packed file, or from a checkpoint in the precision that is wanted.

use std::cell::RefCell;
use std::rc::Rc;

use icgpt_engine::{Checkpoint, Config, Loader, Model, Tokenizer, Unpacker};

use crate::exchange::{give, taken};
use crate::failure::Failure;
use crate::host::HostFile;
use crate::packing::precision;
use crate::running;

/// Pieces of work in a step, of about a megabyte each for a checkpoint.
const PIECES: usize = 16;

/// Most bytes of weights: 32-bit memory has no room for much more.
const MOST: u64 = 7 << 29;

thread_local! {
    static LOADING: RefCell<Option<Loading>> = const { RefCell::new(None) };
    static TOKENIZER: RefCell<Option<Rc<Tokenizer>>> = const { RefCell::new(None) };
}

enum Loading {
    Packed(Box<Unpacker>, u64),
    Checkpoint(Box<Loader>, HostFile),
}

/// The tokenizer that stop strings are found with.
pub fn tokenizer() -> Option<Rc<Tokenizer>> {
    TOKENIZER.with_borrow(Clone::clone)
}

/// Takes tokenizer.json.
#[unsafe(no_mangle)]
pub extern "C" fn set_tokenizer() -> i32 {
    give(|_| {
        let tokenizer = Tokenizer::from_json(&taken());
        let tokenizer = tokenizer.map_err(|e| Failure::Model(format!("tokenizer.json: {e}")))?;
        TOKENIZER.set(Some(Rc::new(tokenizer)));
        Ok(0)
    })
}

/// Begins to load the file that the host lends: a packed one where `bits` is 0, else a safetensors
/// file, to be held in so many bits. Takes config.json; gives how many bytes of weights will be read.
#[unsafe(no_mangle)]
pub extern "C" fn load(len: u64, bits: u32) -> i32 {
    give(|answer| {
        let file = HostFile { len };
        let config = Config::from_json(&taken())?;
        let (loading, total) = if bits == 0 {
            // A file from anywhere: what is in it is looked at too.
            let unpacker = Unpacker::new(config, Rc::new(file), MOST)?.distrusting();
            let total = unpacker.memory();
            (Loading::Packed(Box::new(unpacker), 0), total)
        } else {
            let checkpoint = Checkpoint::parse(&file)?;
            let loader = Loader::with_precision(config, &checkpoint, precision(bits)?)?;
            let total = loader.total();
            (Loading::Checkpoint(Box::new(loader), file), total)
        };
        answer.extend(total.to_le_bytes());
        LOADING.set(Some(loading));
        Ok(0)
    })
}

/// Goes on; 1 when the model is there. Gives how many bytes of weights were read so far.
#[unsafe(no_mangle)]
pub extern "C" fn load_on() -> i32 {
    give(|answer| {
        let Some(mut loading) = LOADING.take() else {
            return Err(Failure::Misuse("nothing is being loaded"));
        };
        let mut left = PIECES;
        let mut may_continue = || {
            left = left.saturating_sub(1);
            left > 0
        };
        let (finished, done) = match &mut loading {
            Loading::Packed(unpacker, read) => {
                let finished = unpacker.step(&mut |bytes| {
                    *read += bytes;
                    may_continue()
                })?;
                (finished, *read)
            }
            Loading::Checkpoint(loader, file) => {
                let finished = loader.step(file, &mut may_continue)?;
                (finished, loader.done())
            }
        };
        answer.extend(done.to_le_bytes());
        if finished {
            running::begin(loading.finish()?);
        } else {
            LOADING.set(Some(loading));
        }
        Ok(finished.into())
    })
}

impl Loading {
    fn finish(self) -> Result<Model, Failure> {
        Ok(match self {
            Self::Packed(unpacker, _) => unpacker.finish()?,
            Self::Checkpoint(loader, _) => loader.finish()?,
        })
    }
}
