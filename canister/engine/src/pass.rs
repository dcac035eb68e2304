//! One pass through the model: rows of several sequences, a block of the model at a time.
//!
//! A row is one token. The rows of a sequence lie one after the other, in the order of their
//! positions; in attention each sees its own sequence up to itself. Whatever rows share a pass, a
//! row's numbers are the same to the bit. In the last block rows whose logits nobody wants end when
//! their keys and values are stored.

use crate::attention::Attention;
use crate::batch::Step;
use crate::cache::Cache;
use crate::config::Config;
use crate::gelu;
use crate::model::{Layer, Model};
use crate::quantised::Activations;
use crate::rotary::Turn;
use crate::rounded_attention;
use crate::session::Session;
use crate::simd::{F32x4, floats, floats_mut, padded};
use crate::weights::Input;

/// The most rows of a pass.
pub(crate) const ROWS: usize = 32;

/// The rows that a session has in a pass.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub rows: usize,
    /// Of how many of them, the last ones, logits are wanted.
    pub wanted: usize,
}

/// A pass under way, with its working memory. Buffers hold a padded vector for each row.
pub(crate) struct Pass {
    /// Vectors of a row of the stream, and of logits.
    width: usize,
    vocabulary: usize,
    spans: Vec<Span>,
    /// The block that comes next; none when there is no pass under way.
    layer: Option<usize>,
    stream: Vec<F32x4>,
    /// As many for each row as the model rotates pairs of a head.
    turns: Vec<Turn>,
    normed: Vec<F32x4>,
    qkv: Vec<F32x4>,
    attended: Vec<F32x4>,
    hidden: Vec<F32x4>,
    rounded: Activations,
    attention: Attention,
    rounded_attention: rounded_attention::Attention,
    /// For each row that wanted them.
    logits: Vec<Vec<F32x4>>,
}

impl Pass {
    pub fn new(config: &Config) -> Self {
        let (n_head, head_size) = (config.n_head, config.n_embd / config.n_head);
        Self {
            width: padded(config.n_embd) / 4,
            vocabulary: padded(config.vocab_size) / 4,
            spans: Vec::new(),
            layer: None,
            stream: Vec::new(),
            turns: Vec::new(),
            normed: Vec::new(),
            qkv: Vec::new(),
            attended: Vec::new(),
            hidden: Vec::new(),
            rounded: Activations::default(),
            attention: Attention::new(n_head, head_size),
            rounded_attention: rounded_attention::Attention::new(n_head, head_size),
            logits: Vec::new(),
        }
    }

    /// Whether a pass was started and has blocks left to run.
    pub fn is_under_way(&self) -> bool {
        self.layer.is_some()
    }

    /// Runs the pass to its end (true), or until `may_continue` says no (false). Of a model that is
    /// not wholly in memory it is asked before each block: such a model is so large that many rows
    /// through the blocks in memory alone may be more than a message can do.
    pub fn run(
        &mut self,
        model: &Model,
        sessions: &mut [&mut Session],
        may_continue: &mut dyn FnMut(Step) -> bool,
    ) -> bool {
        loop {
            let step = Step {
                rows: self.spans.iter().map(|span| span.rows).sum(),
                bytes: self.layer.map_or(0, |index| model.bytes_to_read(index)),
            };
            let first = self.layer == Some(0);
            let asks = step.bytes > 0 || (model.is_streamed() && !first);
            if asks && !may_continue(step) {
                return false;
            }
            if self.step(model, sessions) {
                return true;
            }
        }
    }

    /// Starts a pass: for each session the tokens that follow those it holds, and of how many of
    /// them logits are wanted. Ids must be in the vocabulary and positions in the context.
    pub fn start<'a>(
        &mut self,
        model: &Model,
        parts: impl Iterator<Item = (&'a Session, &'a [u32], usize)>,
    ) {
        let width = self.width;
        self.spans.clear();
        self.stream.clear();
        self.turns.clear();
        for (session, tokens, wanted) in parts {
            let rows = tokens.len();
            self.spans.push(Span { rows, wanted });
            for (at, &token) in (session.len()..).zip(tokens) {
                let start = self.stream.len();
                self.stream.resize(start + width, F32x4::zero());
                model.embed(token, at, &mut self.stream[start..]);
                if let Some(rotary) = &model.rotary {
                    rotary.at(at, &mut self.turns);
                }
            }
        }
        self.layer = Some(0);
    }

    /// Runs the next block of the model, and behind the last one the head. `sessions` are those
    /// that the pass was started with, as they were then. True when the pass is over.
    pub fn step(&mut self, model: &Model, sessions: &mut [&mut Session]) -> bool {
        let Some(index) = self.layer else {
            return true;
        };
        let last = index + 1 == model.config().n_layer;
        self.block(model, &model.layer(index), index, last, sessions);
        if !last {
            self.layer = Some(index + 1);
            return false;
        }
        self.head(model);
        self.layer = None;
        true
    }

    /// Takes a session's rows out of the pass under way.
    pub fn leave(&mut self, index: usize) {
        let width = self.width;
        let before: usize = self.spans[..index].iter().map(|span| span.rows).sum();
        let rows = self.spans.remove(index).rows;
        let turns = self.turns.len() / (self.stream.len() / width).max(1);
        self.turns.drain(before * turns..(before + rows) * turns);
        self.stream.drain(before * width..(before + rows) * width);
        if self.spans.is_empty() {
            self.layer = None;
        }
    }

    /// The logits of the last pass: a padded vector for each row that wanted them.
    /// They may be swapped for buffers that are not needed any more.
    pub fn logits(&mut self) -> impl Iterator<Item = &mut Vec<F32x4>> {
        self.logits.iter_mut()
    }

    /// One block of the model.
    fn block(
        &mut self,
        model: &Model,
        layer: &Layer,
        index: usize,
        last: bool,
        sessions: &mut [&mut Session],
    ) {
        let config = model.config();
        let (n_embd, rounded) = (config.n_embd, &mut self.rounded);
        let rows = self.stream.len() / self.width;
        resize(&mut self.normed, rows, n_embd);
        resize(&mut self.qkv, rows, 3 * n_embd);
        let (stream, normed) = (&mut self.stream, &mut self.normed);
        layer.ln_1.apply(n_embd, stream, normed);
        layer
            .c_attn
            .apply(Input::new(normed, rows, rounded), &mut self.qkv);
        if let Some(rotary) = &model.rotary {
            let vectors = self.qkv.chunks_exact_mut(padded(3 * n_embd) / 4);
            for (qkv, turns) in vectors.zip(self.turns.chunks_exact(rotary.pairs())) {
                rotary.apply(turns, &mut floats_mut(qkv)[..2 * n_embd]);
            }
        }

        self.attend(config, layer.scale, index, last, sessions);
        let (stream, rounded) = (&mut self.stream, &mut self.rounded);
        let rows = stream.len() / self.width;
        if rows == 0 {
            return;
        }
        resize(&mut self.normed, rows, n_embd);
        resize(&mut self.hidden, rows, config.n_inner);
        let (normed, hidden) = (&mut self.normed, &mut self.hidden);
        if layer.ln_2.is_none() {
            // What attention took, again: rows may have left since.
            layer.ln_1.apply(n_embd, stream, normed);
        }
        layer
            .attn_proj
            .add_to(Input::new(&self.attended, rows, rounded), stream);

        if let Some(ln_2) = &layer.ln_2 {
            ln_2.apply(n_embd, stream, normed);
        }
        layer.c_fc.apply(Input::new(normed, rows, rounded), hidden);
        gelu::apply(config.activation, model.precision(), hidden);
        layer
            .mlp_proj
            .add_to(Input::new(hidden, rows, rounded), stream);
    }

    /// Stores keys and values and attends, one row after the other. In the `last` block only rows
    /// whose logits are wanted attend, and only they stay in the stream.
    fn attend(
        &mut self,
        config: &Config,
        scale: f32,
        index: usize,
        last: bool,
        sessions: &mut [&mut Session],
    ) {
        let (n_embd, width) = (config.n_embd, self.width);
        resize(&mut self.attended, self.stream.len() / width, n_embd);
        let mut qkv = self.qkv.chunks_exact(padded(3 * n_embd) / 4);
        let (mut row, mut kept) = (0, 0);
        for (span, session) in self.spans.iter().zip(sessions) {
            let at = session.len();
            let cache = &mut session.caches[index];
            for (i, qkv) in qkv.by_ref().take(span.rows).enumerate() {
                let (queries, rest) = floats(qkv).split_at(n_embd);
                let (keys, values) = rest.split_at(n_embd);
                let values = &values[..n_embd];
                match cache {
                    Cache::Floats(cache) => self.attention.store(cache, at + i, keys, values),
                    Cache::Rounded(cache) => {
                        self.rounded_attention.store(cache, at + i, keys, values);
                    }
                }
                if !last || i + span.wanted >= span.rows {
                    let into = &mut self.attended[kept * width..][..width];
                    let into = floats_mut(into);
                    match cache {
                        Cache::Floats(cache) => {
                            self.attention.attend(cache, at + i, scale, queries, into);
                        }
                        Cache::Rounded(cache) => {
                            self.rounded_attention
                                .attend(cache, at + i, scale, queries, into);
                        }
                    }
                    if kept < row {
                        let from = row * width..(row + 1) * width;
                        self.stream.copy_within(from, kept * width);
                    }
                    kept += 1;
                }
                row += 1;
            }
        }
        self.stream.truncate(kept * width);
        self.attended.truncate(kept * width);
    }

    /// The head's outputs of the rows that are left in the stream.
    fn head(&mut self, model: &Model) {
        let config = model.config();
        let rows = self.stream.len() / self.width;
        resize(&mut self.normed, rows, config.n_embd);
        self.logits.resize_with(rows, Vec::new);
        for logits in &mut self.logits {
            logits.resize(self.vocabulary, F32x4::zero());
        }
        if rows == 0 {
            return;
        }
        model
            .ln_f
            .apply(config.n_embd, &self.stream, &mut self.normed);
        let input = Input::new(&self.normed, rows, &mut self.rounded);
        let outs = self.logits.iter_mut().map(Vec::as_mut_slice);
        model.head().apply_to_each(input, outs.collect());
    }
}

/// Makes room for padded vectors of `n` floats, one for each row. What they hold is left over from
/// before.
fn resize(buffer: &mut Vec<F32x4>, rows: usize, n: usize) {
    buffer.resize(rows * padded(n) / 4, F32x4::zero());
}
