//! The model that answers: set up from files, across messages where it must, and rebuilt from
//! stable memory after an upgrade.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use icgpt_engine::{Checkpoint, Config, Loader, Model, Precision, Tokenizer};

use crate::error::Error;
use crate::files::{self, Kind};
use crate::slices::{Budget, next_message};
use crate::storage;

/// Heap that a model may take, in bytes: what is left of 4 GiB after caches, decoding buffers and
/// the slack of the allocator.
const HEAP_LIMIT: u64 = 3 << 30;

thread_local! {
    static MODEL: RefCell<Option<Rc<Model>>> = const { RefCell::new(None) };
    static TOKENIZER: RefCell<Option<Rc<Tokenizer>>> = const { RefCell::new(None) };
    static PROGRESS: Cell<Option<(u64, u64)>> = const { Cell::new(None) };
}

/// The model that answers.
///
/// # Errors
/// [`Error::NoModel`].
pub fn model() -> Result<Rc<Model>, Error> {
    MODEL.with_borrow(|model| model.clone().ok_or(Error::NoModel))
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

fn loader(
    config: Config,
    weights: &files::StableFile,
    precision: Precision,
) -> Result<Loader, Error> {
    let checkpoint = Checkpoint::parse(weights)?;
    let loader = Loader::with_precision(config, &checkpoint, precision)?;
    let live = MODEL.with_borrow(|model| {
        model
            .as_ref()
            .map_or(0, |m| m.parameters() * m.precision().bytes())
    });
    if loader.memory() + live > HEAP_LIMIT {
        return Err(Error::TooLargeForHeap(loader.memory() + live));
    }
    Ok(loader)
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
    Ok(())
}

fn next_precision(config: &Config) -> Result<Precision, Error> {
    let chosen = storage::with(|storage| storage.meta().next_precision.clone());
    match chosen {
        Some(name) => Ok(name.parse()?),
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
    let new_weights = files::is_staged(Kind::Safetensors);
    let (weights, _) = files::candidate(Kind::Safetensors)?;
    let precision = next_precision(&config)?;
    let mut loader = loader(config, &weights, precision)?;

    let _running = Running;
    PROGRESS.set(Some((0, loader.total())));
    loop {
        let mut budget = Budget::whole();
        if loader.step(&weights, &mut || budget.more())? {
            break;
        }
        PROGRESS.set(Some((loader.done(), loader.total())));
        next_message().await?;
    }
    let model = loader.finish()?;

    files::promote(&[Kind::Safetensors, Kind::Config]);
    storage::with(|storage| {
        storage.update(|meta| {
            meta.precision = Some(precision.to_string());
            meta.next_precision = None;
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
    }
}

/// Rebuilds model and tokenizer from the live files; `post_upgrade` has 300 B instructions for it.
///
/// # Errors
/// What is wrong with the live files, which a set-up had accepted.
pub fn rebuild() -> Result<(), Error> {
    if let (Some(config), Some(weights)) =
        (files::live(Kind::Config), files::live(Kind::Safetensors))
    {
        let config = Config::from_json(&config.bytes())?;
        let mut loader = loader(config, &weights, live_precision()?)?;
        while !loader.step(&weights, &mut || true)? {}
        MODEL.set(Some(Rc::new(loader.finish()?)));
    }
    if let Some(file) = files::live(Kind::Tokenizer) {
        TOKENIZER.set(Some(Rc::new(Tokenizer::from_json(&file.bytes())?)));
    }
    Ok(())
}
