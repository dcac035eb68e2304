//! The model that answers: packed from the uploaded files, across messages where it must, or uploaded
//! packed; and loaded from the packed weights, after an upgrade too.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use ic_cdk::api::instruction_counter;
use icgpt_engine::{
    Checkpoint, Config, Hashing, Model, PackedError, Packer, Precision, Source, Step, Tokenizer,
    Unpacker,
};

use crate::certified;
use crate::error::Error;
use crate::files::{self, Kind, StableFile};
use crate::http;
use crate::jobs;
use crate::packed;
use crate::slices::{PIECE, Stretch, next_message};
use crate::storage;

/// Weights that may be in the heap, in bytes, unless a manager chose: canisters have 3 GiB by default,
/// of which caches, decoding buffers and a set-up's matrix at work take the rest.
pub const HEAP_FOR_WEIGHTS: u64 = 5 << 29;

/// The most that a manager can choose.
pub const MOST_HEAP_FOR_WEIGHTS: u64 = 7 << 29;

/// Instructions that packing may take in `post_upgrade`, which has 300 B.
const MOST_IN_UPGRADE: u64 = 200_000_000_000;

/// Characters of a model's name: as many as an id on the Hugging Face hub may have.
const MOST_NAME: usize = 96;

thread_local! {
    static MODEL: RefCell<Option<Rc<Model>>> = const { RefCell::new(None) };
    static TOKENIZER: RefCell<Option<Rc<Tokenizer>>> = const { RefCell::new(None) };
    static NEEDS_SET_UP: Cell<bool> = const { Cell::new(false) };
    static PROGRESS: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// The model that answers.
///
/// # Errors
/// [`Error::NoModel`], [`Error::NeedsSetUp`], [`Error::NeedsUpload`], or [`Error::SettingUp`] where
/// two models do not fit and the one before has made way.
pub fn model() -> Result<Rc<Model>, Error> {
    MODEL.with_borrow(|model| match model {
        Some(model) => Ok(model.clone()),
        None if PROGRESS.get().is_some() => Err(Error::SettingUp),
        None if NEEDS_SET_UP.get() && files::live(Kind::Safetensors).is_some() => {
            Err(Error::NeedsSetUp)
        }
        None if NEEDS_SET_UP.get() => Err(Error::NeedsUpload),
        None => Err(Error::NoModel),
    })
}

/// SHA-256 that names the model that answers: of its packed weights. Zeros when there is none.
pub fn model_name() -> [u8; 32] {
    let sha256 = packed::sha256().unwrap_or_default();
    sha256.as_slice().try_into().unwrap_or_default()
}

/// Its tokenizer.
///
/// # Errors
/// [`Error::NoTokenizer`].
pub fn tokenizer() -> Result<Rc<Tokenizer>, Error> {
    TOKENIZER.with_borrow(|tokenizer| tokenizer.clone().ok_or(Error::NoTokenizer))
}

/// Bytes of weights read and in all, while a set-up runs.
pub fn progress() -> Option<(u64, u64)> {
    PROGRESS.get()
}

/// Refuses while a set-up reads the files.
///
/// # Errors
/// [`Error::SettingUp`].
pub fn files_may_change() -> Result<(), Error> {
    if PROGRESS.get().is_some() {
        Err(Error::SettingUp)
    } else {
        Ok(())
    }
}

/// Marks a set-up as running until it is dropped, also when a trap ends the set-up early.
struct Running;

impl Drop for Running {
    fn drop(&mut self) {
        PROGRESS.set(None);
    }
}

/// Packs weights into the region that is not live; gives length and SHA-256 of the packed file.
async fn pack(
    config: &Config,
    weights: &StableFile,
    precision: Precision,
) -> Result<(u64, [u8; 32]), Error> {
    let mut packer = Packer::new(config, &Checkpoint::parse(weights)?, precision)?;
    let mut writer = Hashing::new(packed::writer(packer.len())?);
    PROGRESS.set(Some((0, packer.total())));
    loop {
        let mut stretch = Stretch::setting_up();
        if packer.step(weights, &mut writer, &mut || stretch.more(PIECE))? {
            let length = packer.len();
            packer.finish()?;
            return Ok((length, writer.sha256()));
        }
        PROGRESS.set(Some((packer.done(), packer.total())));
        next_message().await?;
    }
}

/// What a set-up makes the model of.
enum Weights {
    /// A checkpoint, to be packed.
    Checkpoint(StableFile),
    /// Packed weights that were uploaded; nobody has looked at them yet.
    Uploaded(StableFile),
    /// Those of the model that answers, whose checkpoint was never here.
    Live(StableFile),
}

fn weights() -> Result<Weights, Error> {
    if files::is_staged(Kind::Packed) {
        let (file, _) = files::candidate(Kind::Packed)?;
        return Ok(Weights::Uploaded(file));
    }
    match files::candidate(Kind::Safetensors) {
        Ok((file, _)) => Ok(Weights::Checkpoint(file)),
        Err(Error::NothingUploaded(kind)) if files::live(kind).is_none() => packed::live()
            .map(Weights::Live)
            .ok_or(Error::NothingUploaded(kind)),
        Err(error) => Err(error),
    }
}

/// Refuses what can't be had without the checkpoint: the live packed weights in another precision.
fn keep_precision() -> Result<(), Error> {
    let chosen = storage::with(|storage| storage.meta().next_precision.clone());
    let live = live_precision()?.to_string();
    match chosen {
        Some(chosen) if chosen != live => Err(Error::NoCheckpoint(live)),
        _ => Ok(()),
    }
}

/// Loads packed weights, over as many messages as it takes.
async fn unpack(mut unpacker: Unpacker) -> Result<Model, Error> {
    loop {
        let mut stretch = Stretch::setting_up();
        if unpacker.step(&mut |bytes| stretch.more(Step { bytes, ..PIECE }))? {
            return Ok(unpacker.finish()?);
        }
        next_message().await?;
    }
}

fn unpacker(config: Config, file: StableFile) -> Result<Unpacker, Error> {
    Ok(Unpacker::new(config, Rc::new(file), heap_for_weights())?)
}

fn heap_for_weights() -> u64 {
    let chosen = storage::with(|storage| storage.meta().heap_for_weights);
    chosen.unwrap_or(HEAP_FOR_WEIGHTS)
}

/// Sees to it that so many bytes of weights fit into the heap. Where two models don't, the one that
/// answers makes way.
fn make_room(bytes: u64) -> Result<(), Error> {
    jobs::let_go_of_idle_model();
    MODEL.with_borrow_mut(|slot| match slot {
        Some(model) if bytes + model.memory() > heap_for_weights().max(HEAP_FOR_WEIGHTS) => {
            if Rc::strong_count(model) > 1 {
                return Err(Error::ModelInUse);
            }
            *slot = None;
            Ok(())
        }
        _ => Ok(()),
    })?;
    http::renew();
    Ok(())
}

/// Chooses how many bytes of weights the heap may hold, from the next set-up or upgrade on.
///
/// # Errors
/// [`Error::HeapForWeights`], or that the model which answers could not be loaded any more.
pub fn choose_heap(bytes: u64) -> Result<(), Error> {
    if bytes > MOST_HEAP_FOR_WEIGHTS {
        return Err(Error::HeapForWeights(MOST_HEAP_FOR_WEIGHTS));
    }
    if let (Some(config), Some(file)) = (files::live(Kind::Config), packed::live()) {
        Unpacker::new(Config::from_json(&config.bytes())?, Rc::new(file), bytes)?;
    }
    storage::with(|storage| storage.update(|meta| meta.heap_for_weights = Some(bytes)));
    Ok(())
}

/// Gives the model that answers a name, or takes its name away.
///
/// # Errors
/// [`Error::Name`], [`Error::NoModel`].
pub fn choose_name(name: Option<String>) -> Result<(), Error> {
    model()?;
    if let Some(name) = &name {
        let length = name.chars().count();
        let plain = name.trim() == name && !name.chars().any(char::is_control);
        if !plain || !(1..=MOST_NAME).contains(&length) {
            return Err(Error::Name(MOST_NAME));
        }
    }
    storage::with(|storage| storage.update(|meta| meta.name = name));
    http::renew();
    Ok(())
}

/// Chooses how the next set-up holds the weights; none leaves it to config.json, and f32 where that
/// is silent. A set-up that succeeds spends the choice.
///
/// # Errors
/// [`Error::Precision`] for a name that no precision has, [`Error::SettingUp`].
pub fn choose_precision(name: Option<String>) -> Result<(), Error> {
    files_may_change()?;
    if let Some(name) = &name {
        name.parse::<Precision>()?;
    }
    storage::with(|storage| storage.update(|meta| meta.next_precision = name));
    http::renew();
    Ok(())
}

fn next_precision(config: &Config) -> Result<Precision, Error> {
    let chosen = storage::with(|storage| storage.meta().next_precision.clone());
    match chosen {
        Some(name) => Ok(name.parse()?),
        None if NEEDS_SET_UP.get() => live_precision(),
        None => Ok(config.precision.unwrap_or_default()),
    }
}

/// The precision of the model that answers.
fn live_precision() -> Result<Precision, Error> {
    let name = storage::with(|storage| storage.meta().precision.clone());
    Ok(name
        .map(|name| name.parse())
        .transpose()?
        .unwrap_or_default())
}

fn check_vocabulary(tokenizer: &Tokenizer, vocab_size: usize) -> Result<(), Error> {
    let max_id = tokenizer.max_id();
    if max_id as usize >= vocab_size {
        return Err(Error::Vocabulary { max_id, vocab_size });
    }
    Ok(())
}

/// The uploaded tokenizer that is to go live with a model of this vocabulary, if there is one.
fn staged_tokenizer(vocab_size: usize) -> Result<Option<Tokenizer>, Error> {
    if !files::is_staged(Kind::Tokenizer) {
        return Ok(None);
    }
    match files::candidate(Kind::Tokenizer) {
        Ok((file, _)) => {
            let tokenizer = Tokenizer::from_json(&file.bytes())?;
            check_vocabulary(&tokenizer, vocab_size)?;
            Ok(Some(tokenizer))
        }
        // Its upload is still under way; `setup_tokenizer` will come later.
        Err(_) => Ok(None),
    }
}

/// Builds the model of the uploaded files, with the uploaded tokenizer if that is complete. What
/// was there before answers until all of it is ready; then it is replaced in one step.
///
/// # Errors
/// What is wrong with the files; then nothing has changed.
pub async fn set_up_model() -> Result<(), Error> {
    files_may_change()?;
    let (config, _) = files::candidate(Kind::Config)?;
    let config = Config::from_json(&config.bytes())?;
    let vocab_size = config.vocab_size;
    let tokenizer = staged_tokenizer(vocab_size)?;
    let new_weights = files::is_staged(Kind::Safetensors) || files::is_staged(Kind::Packed);
    let weights = weights()?;

    let _running = Running;
    let mut written = None;
    let unpacker = match &weights {
        Weights::Checkpoint(file) => {
            let precision = next_precision(&config)?;
            let (length, sha256) = pack(&config, file, precision).await?;
            written = Some((length, sha256));
            unpacker(config, packed::written(length))?
        }
        Weights::Uploaded(file) => {
            PROGRESS.set(Some((0, file.len())));
            unpacker(config, file.clone())?.distrusting()
        }
        Weights::Live(file) => {
            keep_precision()?;
            PROGRESS.set(Some((0, file.len())));
            unpacker(config, file.clone())?
        }
    };
    make_room(unpacker.memory())?;
    let model = match unpack(unpacker).await {
        Ok(model) => model,
        Err(error) => {
            if MODEL.with_borrow(Option::is_none) {
                rebuild_model()?;
                http::renew();
            }
            return Err(error);
        }
    };

    match (weights, written) {
        (Weights::Uploaded(_), _) => {
            files::promote(&[Kind::Packed]);
            // It is not what this model was made of.
            files::retire(Kind::Safetensors);
        }
        (_, Some((length, sha256))) => {
            packed::promote(length, sha256);
            files::promote(&[Kind::Safetensors]);
        }
        (_, None) => {}
    }
    files::promote(&[Kind::Config]);
    storage::with(|storage| {
        storage.update(|meta| {
            meta.precision = Some(model.precision().to_string());
            meta.next_precision = None;
            if new_weights {
                meta.name = None; // it was called so, and not this one
            }
        });
    });
    if let Some(tokenizer) = tokenizer {
        files::promote(&[Kind::Tokenizer]);
        TOKENIZER.set(Some(Rc::new(tokenizer)));
    } else if new_weights
        || self::tokenizer().is_ok_and(|t| check_vocabulary(&t, vocab_size).is_err())
    {
        // It belonged to the model before this one.
        files::retire(Kind::Tokenizer);
        TOKENIZER.set(None);
    }
    MODEL.set(Some(Rc::new(model)));
    NEEDS_SET_UP.set(false);
    jobs::let_go_of_model();
    certified::set_model(model_name());
    http::renew();
    Ok(())
}

/// Reads the uploaded tokenizer. The one before it stays when this one is refused.
///
/// # Errors
/// What is wrong with the file; then nothing has changed.
pub fn set_up_tokenizer() -> Result<(), Error> {
    files_may_change()?;
    let (file, _) = files::candidate(Kind::Tokenizer)?;
    let tokenizer = Tokenizer::from_json(&file.bytes())?;
    if let Ok(model) = model() {
        check_vocabulary(&tokenizer, model.config().vocab_size)?;
    }
    files::promote(&[Kind::Tokenizer]);
    TOKENIZER.set(Some(Rc::new(tokenizer)));
    http::renew();
    Ok(())
}

/// Checks an uploaded file's structure without setting it up.
///
/// # Errors
/// What is wrong with the file.
pub fn check(kind: Kind) -> Result<(), Error> {
    let (file, _) = files::candidate(kind)?;
    match kind {
        Kind::Safetensors => Checkpoint::parse(&file).map(drop).map_err(Error::from),
        Kind::Config => Config::from_json(&file.bytes())
            .map(drop)
            .map_err(Error::from),
        Kind::Tokenizer => Tokenizer::from_json(&file.bytes())
            .map(drop)
            .map_err(Error::from),
        Kind::Packed => {
            let (config, _) = files::candidate(Kind::Config)?;
            unpacker(Config::from_json(&config.bytes())?, file).map(drop)
        }
    }
}

/// Loads model and tokenizer again; `post_upgrade` has 300 B instructions for it.
///
/// # Errors
/// What is wrong with the live files, which a set-up had accepted.
pub fn rebuild() -> Result<(), Error> {
    rebuild_model()?;
    if let Some(file) = files::live(Kind::Tokenizer) {
        TOKENIZER.set(Some(Rc::new(Tokenizer::from_json(&file.bytes())?)));
    }
    Ok(())
}

/// Loads the live packed weights; where there are none that this version reads, they are packed
/// again from the checkpoint. What that takes too long for is left to a set-up, and what was uploaded
/// packed to another upload.
fn rebuild_model() -> Result<(), Error> {
    let Some(config) = files::live(Kind::Config) else {
        return Ok(());
    };
    let config = Config::from_json(&config.bytes())?;
    let stored = packed::live().map(|file| unpacker(config.clone(), file));
    let mut unpacker = match stored {
        Some(Ok(unpacker)) => unpacker,
        Some(Err(error @ Error::Packed(PackedError::TooLarge { .. }))) => return Err(error),
        found => {
            let checkpoint = files::live(Kind::Safetensors);
            let packed = match &checkpoint {
                Some(weights) => pack_again(&config, weights)?,
                None => None,
            };
            let Some(file) = packed else {
                NEEDS_SET_UP.set(checkpoint.is_some() || found.is_some());
                return Ok(());
            };
            unpacker(config, file)?
        }
    };
    while !unpacker.step(&mut |_| true)? {}
    MODEL.set(Some(Rc::new(unpacker.finish()?)));
    Ok(())
}

/// Packs the live checkpoint as the live weights; none if that takes too long.
fn pack_again(config: &Config, weights: &StableFile) -> Result<Option<StableFile>, Error> {
    let mut packer = Packer::new(config, &Checkpoint::parse(weights)?, live_precision()?)?;
    let length = packer.len();
    let mut writer = Hashing::new(packed::writer(length)?);
    let mut may_continue = || instruction_counter() < MOST_IN_UPGRADE;
    if !packer.step(weights, &mut writer, &mut may_continue)? {
        return Ok(None);
    }
    packer.finish()?;
    packed::promote(length, writer.sha256());
    Ok(packed::live())
}
