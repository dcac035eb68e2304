//! Rounding the boxed model's weights must hardly show on a text that it was not trained on: a
//! scene of Hamlet, which tiny Shakespeare does not contain.
#![allow(clippy::unwrap_used, clippy::ptr_arg, missing_docs)]

mod common;
#[path = "common/quality.rs"]
mod quality;

use std::fs;

use common::golden_folder;
use quality::measure;

#[test]
fn rounded_weights_hardly_change_what_the_boxed_model_says() {
    let golden = golden_folder();
    let text = fs::read_to_string(golden.join("held-out.txt")).unwrap();
    let found = measure(
        &golden.join("../../icgpt/models/shakespeare-char"),
        // Nine contexts; `scripts/bench quality` runs all of it.
        &text[..=9 * 256],
    );
    let exact = found[0].perplexity;
    // A model that had learnt nothing would reach the vocabulary's 65.
    assert!(exact > 3.0 && exact < 7.0, "{exact}");
    for (rounded, least, most) in [(&found[1], 0.98, 0.005), (&found[2], 0.998, 0.0005)] {
        let share = rounded.agreement();
        let change = rounded.perplexity / exact - 1.0;
        println!(
            "{:?}: {share:.4} of {} positions, perplexity {:+.4} %",
            rounded.precision,
            rounded.positions,
            100.0 * change
        );
        assert!(rounded.positions >= 2000);
        assert!(share >= least, "{:?}: {share}", rounded.precision);
        assert!(change.abs() <= most, "{:?}: {change}", rounded.precision);
    }
}
