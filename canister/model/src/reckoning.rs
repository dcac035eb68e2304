//! What work takes, reckoned before it is done: instructions by the model's size, and what the
//! platform charges for pages of memory.
//!
//! A counter tells what a step has taken only when it has ended. So that none ends its message at
//! the platform's limit, each is guessed beforehand; a [`Stretch`](crate::slices::Stretch) goes on
//! with what it measures.

use icgpt_engine::{Model, Precision, Session};

use crate::slices::{FRESH, MOST_PER_MESSAGE};

/// The platform's page, in bytes, and its charges: when it is first touched (before it is first
/// written it is charged as much again), and for a written one after the message.
const PAGE: u64 = 65_536;
const TOUCHED: u64 = 80_000;
const AFTER: u64 = 48_000;

/// The most rows that a pass has, and a number of them that suits the kernels.
const MOST_ROWS: usize = 32;
const ROWS_TOGETHER: usize = 8;

/// What touching so many bytes of the heap for the first time in a message takes.
pub fn touching(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE) * TOUCHED
}

/// What the platform charges after a message that may have written so many bytes.
pub fn after_writing(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE) * AFTER
}

/// What reading weights from stable memory takes: each byte, and the pages that they lie in and
/// are read into.
pub fn reading(bytes: u64) -> u64 {
    bytes + bytes.div_ceil(PAGE) * TOUCHED
}

/// A little more than the dearest row so far, since rows grow dearer with the context.
pub fn next_row(row: u64) -> u64 {
    row + row / 16
}

/// Bytes of keys and values that a sequence of so many positions takes.
pub fn cache(model: &Model, positions: usize) -> u64 {
    Session::bytes_of(model, positions)
}

/// What a stretch must know of the model and the memory it works on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Load {
    /// Bytes of weights that lie in the heap.
    pub weights: u64,
    /// Bytes that the stretch may write: keys and values.
    pub written: u64,
    /// Instructions of the dearest row of an earlier stretch, or a guess.
    pub row: u64,
}

/// What a model's passes take, or those parts of them that can't be cut, in instructions.
#[derive(Clone, Copy, Debug)]
struct Passes {
    /// A row, at the end of the context.
    row: u64,
    /// The same where it shares the kernel that the most rows have.
    shared: u64,
}

impl Passes {
    /// Products of weights and of attention at the end of the context, each of which takes about as
    /// many instructions as docs/performance.md shows, or a few less.
    fn new(precision: Precision, weights: u64, attention: u64) -> Self {
        match precision {
            Precision::F32 => Self {
                row: 2 * (weights + attention),
                shared: 2 * (weights + attention),
            },
            Precision::Int8 | Precision::Int16 => Self {
                row: weights * 7 / 10 + attention,
                shared: weights / 2 + attention,
            },
        }
    }

    /// Those of a model: whole where it lies in the heap. A larger one is asked about block by block,
    /// and the last block has the head, too.
    fn of(model: &Model) -> Self {
        let config = model.config();
        let attention = 2 * config.n_layer * config.n_embd * config.n_ctx;
        let Self { row, shared } =
            Self::new(model.precision(), model.parameters(), attention as u64);
        let steps = if model.is_streamed() {
            config.n_layer.div_ceil(2) as u64
        } else {
            1
        };
        Self {
            row: row / steps,
            shared: shared / steps,
        }
    }

    /// Rows of a pass that surely fit so many instructions.
    fn rows(self, room: u64) -> usize {
        if next_row(self.shared) * MOST_ROWS as u64 <= room {
            return MOST_ROWS;
        }
        let fit = room / next_row(self.row).max(1);
        match fit.min(MOST_ROWS as u64 - 1) as usize {
            few @ 0..ROWS_TOGETHER => few.max(1),
            rows => rows - rows % ROWS_TOGETHER,
        }
    }
}

/// What is left of a message for a pass: it may begin where other work was done up to what counts
/// as fresh, touches all weights, reads and writes the caches, and is charged for those afterwards.
fn room(weights: u64, written: u64) -> u64 {
    let pages = touching(weights) + 2 * touching(written) + after_writing(written);
    MOST_PER_MESSAGE.saturating_sub(FRESH + pages)
}

/// Rows of a pass that surely fit a message which has just begun. A pass of a model in the heap is
/// asked about but once and can't be cut: with more rows it would end its message, and the next one.
pub fn rows(model: &Model, written: u64) -> usize {
    Passes::of(model).rows(room(model.memory(), written))
}

impl Load {
    /// Passes of this model that write so many bytes; `row` is the dearest so far, 0 before any.
    pub fn of(model: &Model, written: u64, row: u64) -> Self {
        Self {
            weights: model.memory(),
            written,
            row: row.max(Passes::of(model).row),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use Precision::{F32, Int8, Int16};

    const MB: u64 = 1 << 20;

    /// Layers, width and context, parameters in millions.
    const SHAPES: [(u64, u64, u64, u64); 5] = [
        (12, 768, 1024, 124),
        (24, 1024, 1024, 355),
        (36, 1280, 1024, 774),
        (48, 1600, 1024, 1558),
        (28, 4096, 2048, 6053),
    ];

    fn passes(precision: Precision, shape: (u64, u64, u64, u64)) -> (Passes, u64) {
        let (layers, width, context, millions) = shape;
        let weights = millions * 1_000_000;
        let attention = 2 * layers * width * context;
        let bytes = match precision {
            F32 => 4,
            Int16 => 2,
            Int8 => 1,
        };
        (
            Passes::new(precision, weights, attention),
            (weights * bytes).min(7 << 29),
        )
    }

    #[test]
    fn a_pass_fits_a_message_whatever_the_model() {
        for precision in [F32, Int8, Int16] {
            for shape in SHAPES {
                for written in [0, MB, 256 * MB, 1_792 * MB] {
                    let (passes, weights) = passes(precision, shape);
                    let rows = passes.rows(room(weights, written));
                    let row = if rows == MOST_ROWS {
                        passes.shared
                    } else {
                        passes.row
                    };
                    let pages = touching(weights) + 2 * touching(written) + after_writing(written);
                    let taken = FRESH + rows as u64 * next_row(row) + pages;
                    assert!(taken <= MOST_PER_MESSAGE, "{precision} {shape:?} {written}");
                    assert!((1..=MOST_ROWS).contains(&rows));
                }
            }
        }
    }

    /// What a message would take without the rule, where the whole model lies in the heap.
    #[test]
    fn all_rows_of_a_heavy_model_would_not_fit() {
        let (passes, weights) = passes(Int8, (48, 2560, 1024, 3_700));
        assert!(next_row(passes.shared) * 32 + touching(weights) > 40_000_000_000);
        assert_eq!(passes.rows(room(weights, 256 * MB)), 8);
        let (passes, weights) = self::passes(F32, (36, 1280, 1024, 774));
        assert!(next_row(passes.shared) * 32 + touching(weights) > 40_000_000_000);
        assert_eq!(passes.rows(room(weights, 256 * MB)), 16);
    }

    #[test]
    fn gpt_2_takes_as_many_rows_as_the_engine_has_in_every_shape() {
        for shape in &SHAPES[..4] {
            for precision in [Int8, Int16] {
                let (passes, weights) = passes(precision, *shape);
                assert_eq!(passes.rows(room(weights, 512 * MB)), 32, "{shape:?}");
            }
        }
    }

    #[test]
    fn there_is_always_a_row() {
        let heavy = |row| Passes { row, shared: row };
        assert_eq!(heavy(6_000_000_000).rows(33_000_000_000), 5);
        assert_eq!(heavy(60_000_000_000).rows(33_000_000_000), 1);
        assert_eq!(heavy(1).rows(0), 1);
        assert_eq!(heavy(0).rows(0), 32);
    }

    /// docs/performance.md: a token alone at a context of 1023, and one of a prompt of 512 tokens.
    #[test]
    fn reckons_no_less_than_was_measured() {
        for (precision, alone, shared) in [
            (Int8, 101_100_000, 49_500_000),
            (Int16, 101_200_000, 49_500_000),
            (F32, 272_700_000, 180_400_000),
        ] {
            let (passes, _) = passes(precision, SHAPES[0]);
            assert!(
                passes.row >= alone && passes.shared >= shared,
                "{precision}"
            );
            assert!(passes.row < alone * 5 / 4);
        }
    }
}
