//! A sequence on its way through the model, and the tokens that it is to hold.

use crate::session::Session;
use crate::simd::F32x4;

/// A session, and the tokens that it is to hold before the next one is chosen: prompt and answer, or
/// after a slide the end of them.
pub struct Strand {
    pub session: Session,
    window: Vec<u32>,
}

impl Strand {
    /// Cuts the session back to what it has in common with the window.
    pub fn new(mut session: Session, window: Vec<u32>) -> Strand {
        let common = common(session.tokens(), &window);
        // The last token is run in any case, for its logits.
        session.truncate(common.min(window.len().saturating_sub(1)));
        Strand { session, window }
    }

    /// Tokens that are to be run next.
    pub fn pending(&self) -> &[u32] {
        &self.window[self.session.len()..]
    }

    /// Takes note that the next `rows` tokens were run, the last one for its logits if there are any.
    /// Says whether there are.
    pub fn ran(&mut self, rows: usize, logits: Option<&mut Vec<F32x4>>) -> bool {
        let (start, wanted) = (self.session.len(), logits.is_some());
        self.session.add(&self.window[start..start + rows], logits);
        wanted
    }

    /// Goes on with the last of the answer's tokens. Says whether the window slid.
    pub fn push(&mut self, prompt: &[u32], tokens: &[u32], n_ctx: usize) -> bool {
        let slid = grow(&mut self.window, prompt, tokens, n_ctx);
        if slid {
            // Positions are absolute, so what is kept has to be computed again.
            self.session.clear();
        }
        slid
    }

    /// A second one, which shares the memory of what was run.
    pub fn fork(&self) -> Strand {
        Strand {
            session: self.session.fork(self.session.len()),
            window: self.window.clone(),
        }
    }

    pub fn window(&self) -> &[u32] {
        &self.window
    }
}

/// How much two lists have in common at their beginning.
fn common(one: &[u32], other: &[u32]) -> usize {
    one.iter().zip(other).take_while(|(a, b)| a == b).count()
}

/// What all windows begin with; of each at least a token is left, for its logits.
pub fn trunk(windows: &[&[u32]]) -> Vec<u32> {
    let Some((first, others)) = windows.split_first() else {
        return Vec::new();
    };
    let shared = others.iter().map(|other| common(first, other)).min();
    let shortest = windows.iter().map(|window| window.len()).min().unwrap_or(0);
    let length = shared.unwrap_or(shortest).min(shortest.saturating_sub(1));
    first[..length].to_vec()
}

/// The first window of a prompt, which is cropped to its end where the context slides.
pub fn first_window(prompt: &[u32], n_ctx: usize) -> Vec<u32> {
    if prompt.len() > n_ctx {
        last(prompt, &[], kept(n_ctx))
    } else {
        prompt.to_vec()
    }
}

/// Adds the last of `tokens` to a window; one that is full slides (true).
pub fn grow(window: &mut Vec<u32>, prompt: &[u32], tokens: &[u32], n_ctx: usize) -> bool {
    let full = window.len() >= n_ctx;
    if full {
        *window = last(prompt, tokens, kept(n_ctx));
    } else {
        window.extend(tokens.last());
    }
    full
}

/// How many tokens a slide keeps.
fn kept(n_ctx: usize) -> usize {
    n_ctx - n_ctx / 4
}

/// The last `n` of two lists that follow each other.
fn last(first: &[u32], second: &[u32], n: usize) -> Vec<u32> {
    let skip = (first.len() + second.len()).saturating_sub(n);
    first.iter().chain(second).skip(skip).copied().collect()
}
