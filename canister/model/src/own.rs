//! Our own interface beside the seed's: what runs here, jobs, and the numbers behind the text.

#![allow(
    clippy::needless_pass_by_value,
    reason = "Candid decodes arguments as owned values"
)]

use ic_cdk::api::msg_caller;
use icgpt_engine::{Activation, Batch, Context, Generation, Model, Request, Scoring, Step};
use serde_bytes::ByteBuf;

use crate::access::{is_manager, manager, user};
use crate::error::Error;
use crate::files::{self, Kind};
use crate::http;
use crate::jobs;
use crate::packed;
use crate::quotas;
use crate::reckoning::{self, Load};
use crate::serving;
use crate::slices::{self, LEAST_PER_MESSAGE, MOST_PER_MESSAGE, Stretch, next_message};
use crate::storage::{self, LAYOUT_VERSION};
use crate::types::{
    Architecture, Completion, Files, JobCertificate, ModelInfo, Options, Progress, Prompt,
    RunningJob, Setup, SourceSha256, Template,
};

#[ic_cdk::query]
fn files() -> Files {
    Files {
        safetensors: files::state(Kind::Safetensors),
        config: files::state(Kind::Config),
        tokenizer: files::state(Kind::Tokenizer),
        packed: Some(files::state(Kind::Packed)),
    }
}

/// The running model, or how far its set-up has come.
#[ic_cdk::query]
pub fn model_info() -> ModelInfo {
    let model = serving::model().ok();
    let config = model.as_ref().map(|model| model.config());
    let live = |kind| files::state(kind).live.map(|info| info.sha256);
    ModelInfo {
        setup: match (serving::progress(), &model) {
            (Some((done, total)), _) => Setup::SettingUp { done, total },
            (None, Some(_)) => Setup::Ready,
            (None, None) => Setup::Empty,
        },
        name: storage::with(|storage| storage.meta().name.clone()),
        architecture: model.as_ref().map(|model| {
            let config = model.config();
            Architecture {
                family: config.family.name().into(),
                n_layer: config.n_layer as u32,
                n_head: config.n_head as u32,
                n_embd: config.n_embd as u32,
                n_ctx: config.n_ctx as u32,
                n_inner: config.n_inner as u32,
                vocab_size: config.vocab_size as u32,
                activation: match config.activation {
                    Activation::GeluNew => "gelu_new",
                    Activation::Gelu => "gelu",
                }
                .into(),
                tied: model.tied(),
                parameters: model.parameters(),
            }
        }),
        precision: model
            .as_ref()
            .map(|model| model.precision())
            .unwrap_or_default()
            .to_string(),
        next_precision: storage::with(|storage| storage.meta().next_precision.clone()),
        layout_sha256: packed::sha256(),
        streamed: model.as_ref().map(|model| model.is_streamed()),
        source_sha256: SourceSha256 {
            safetensors: live(Kind::Safetensors),
            config: live(Kind::Config),
            tokenizer: live(Kind::Tokenizer),
        },
        template: config
            .and_then(|config| config.template.as_ref())
            .map(|template| Template {
                prefix: template.prefix.clone(),
                suffix: template.suffix.clone(),
                stop: template.stop.clone(),
            }),
        context: match config.map(|config| config.context) {
            Some(Context::Slide) => "slide",
            _ => "stop",
        }
        .into(),
        tokenizer: serving::tokenizer().is_ok(),
        layout_version: LAYOUT_VERSION,
        per_message: slices::per_message(),
        module_version: env!("CARGO_PKG_VERSION").into(),
    }
}

#[ic_cdk::update(guard = "user")]
async fn complete(prompt: Prompt, options: Options) -> Result<Completion, String> {
    jobs::complete(msg_caller(), prompt, options, true, jobs::Kind::Awaited)
        .await
        .map_err(|error| error.to_string())
}

#[ic_cdk::query(guard = "user")]
fn complete_query(prompt: Prompt, options: Options) -> Result<Progress, String> {
    jobs::complete_query(&prompt, options).map_err(|error| error.to_string())
}

#[ic_cdk::update(guard = "user")]
async fn submit(prompt: Prompt, options: Options) -> Result<ByteBuf, String> {
    match jobs::submit(msg_caller(), prompt, options).await {
        Ok(id) => Ok(ByteBuf::from(id.to_vec())),
        Err(error) => Err(error.to_string()),
    }
}

#[ic_cdk::query]
fn poll(id: ByteBuf, from: u32) -> Result<Progress, String> {
    jobs::poll(msg_caller(), &id, from).map_err(|error| error.to_string())
}

#[ic_cdk::query(name = "jobs")]
fn running_jobs() -> Vec<RunningJob> {
    let caller = msg_caller();
    jobs::running(caller, is_manager(&caller))
}

#[ic_cdk::update(guard = "user")]
fn cancel(id: ByteBuf) -> Result<(), String> {
    let caller = msg_caller();
    jobs::cancel(caller, is_manager(&caller), &id).map_err(|error| error.to_string())
}

#[ic_cdk::query]
fn job_certificate(id: ByteBuf) -> Result<JobCertificate, String> {
    jobs::certificate(msg_caller(), &id).map_err(|error| error.to_string())
}

/// Runs work of its own, beside the jobs, over as many messages as it takes. `run` goes on until it
/// is finished (true) or told to stop.
async fn to_the_end(
    model: &Model,
    positions: usize,
    mut run: impl FnMut(&mut dyn FnMut(Step) -> bool) -> bool,
) -> Result<(), Error> {
    let mut load = Load::of(model, reckoning::cache(model, positions), 0);
    loop {
        let mut stretch = Stretch::update(slices::per_message(), &load);
        if run(&mut |step| stretch.more(step)) {
            return Ok(());
        }
        (_, load.row) = stretch.end();
        next_message().await?;
    }
}

#[ic_cdk::update(guard = "user")]
async fn logits(ids: Vec<u32>) -> Result<Vec<f32>, String> {
    let run = async {
        let model = serving::model()?;
        if ids.is_empty() {
            return Err(Error::Limit("the prompt is empty"));
        }
        let tokens = ids.len();
        let request = Request::for_logits(ids);
        let mut batch = Batch::new(&model);
        batch.add(0, Generation::new(&model, request)?);
        batch.limit_rows(reckoning::rows(&model, reckoning::cache(&model, tokens)));
        quotas::take(&msg_caller(), tokens as u64)?;
        to_the_end(&model, tokens, |more| batch.run(&model, more)).await?;
        let answer = batch.remove(0);
        Ok(answer.map_or(Vec::new(), |answer| answer.logits().to_vec()))
    };
    run.await.map_err(|error: Error| error.to_string())
}

#[ic_cdk::update(guard = "user")]
async fn score(prompt: Vec<u32>, continuation: Vec<u32>) -> Result<Vec<f32>, String> {
    let run = async {
        let model = serving::model()?;
        let tokens = prompt.len() + continuation.len();
        let mut scoring = Scoring::new(&model, prompt, continuation)?;
        scoring.limit_rows(reckoning::rows(&model, reckoning::cache(&model, tokens)));
        quotas::take(&msg_caller(), tokens as u64)?;
        to_the_end(&model, tokens, |more| scoring.run(&model, more)).await?;
        Ok(scoring.logprobs().to_vec())
    };
    run.await.map_err(|error: Error| error.to_string())
}

#[ic_cdk::update(guard = "manager")]
fn set_name(name: Option<String>) -> Result<(), String> {
    serving::choose_name(name).map_err(|error| error.to_string())
}

#[ic_cdk::update(guard = "manager")]
fn set_precision(precision: Option<String>) -> Result<(), String> {
    serving::choose_precision(precision).map_err(|error| error.to_string())
}

#[ic_cdk::update(guard = "manager")]
fn set_heap_for_weights(bytes: u64) -> Result<(), String> {
    serving::choose_heap(bytes).map_err(|error| error.to_string())
}

#[ic_cdk::update(guard = "manager")]
fn set_per_message(instructions: u64) -> Result<(), String> {
    if !(LEAST_PER_MESSAGE..=MOST_PER_MESSAGE).contains(&instructions) {
        return Err(format!(
            "a message may spend {LEAST_PER_MESSAGE} to {MOST_PER_MESSAGE} instructions"
        ));
    }
    storage::with(|storage| storage.update(|meta| meta.per_message = Some(instructions)));
    http::renew();
    Ok(())
}
