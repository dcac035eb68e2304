//! What the canister counts, in Prometheus' text form
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>).
//!
//! Counters begin anew when the canister starts: they are in the heap, and what reads them copes with
//! that. What is to outlive an upgrade is with the jobs and quotas.

use std::cell::RefCell;
use std::fmt::{Display, Write};

use ic_cdk::api::{canister_cycle_balance, time};

use crate::access;
use crate::jobs;
use crate::own;
use crate::quotas;
use crate::serving;
use crate::types::Finish;

/// Names of the ways in which a job ends.
const ENDS: [&str; 5] = ["stop", "length", "context", "cancelled", "failed"];

const WASM_PAGE: u64 = 1 << 16;

#[derive(Default)]
struct Counts {
    since: u64,
    ended: [u64; ENDS.len()],
    refused: u64,
    prompt_tokens: u64,
    completion_tokens: u64,
    instructions: u64,
}

thread_local! {
    static COUNTS: RefCell<Counts> = RefCell::default();
}

/// Notes when counting began; called when the canister starts.
pub fn begin() {
    COUNTS.with_borrow_mut(|counts| counts.since = time());
}

/// Counts a job that has ended: tokens of its prompt and of its answers, and what it took.
pub fn ended(finish: &Finish, prompt: u64, completion: u64, instructions: u64) {
    let end = match finish {
        Finish::Stop => 0,
        Finish::Length => 1,
        Finish::Context => 2,
        Finish::Cancelled => 3,
        Finish::Failed(_) => 4,
    };
    COUNTS.with_borrow_mut(|counts| {
        counts.ended[end] += 1;
        counts.prompt_tokens += prompt;
        counts.completion_tokens += completion;
        counts.instructions += instructions;
    });
}

/// Counts a job that was not taken in.
pub fn refused() {
    COUNTS.with_borrow_mut(|counts| counts.refused += 1);
}

/// All figures, or only those that the canister's public methods tell everyone.
pub fn text(all: bool) -> String {
    let mut page = Page::default();
    of_the_model(&mut page);
    if all {
        of_the_work(&mut page);
        of_the_canister(&mut page);
    }
    page.0
}

fn of_the_model(page: &mut Page) {
    let info = own::model_info();
    let family = info.architecture.map_or(String::new(), |its| its.family);
    let version = info.module_version;
    let name = info.name.unwrap_or_default();
    let precision = info.precision;
    page.head(
        "info",
        "gauge",
        "The model that answers, and the canister's code.",
    );
    page.line(
        "info",
        &[
            ("version", &version),
            ("model", &name),
            ("family", &family),
            ("precision", &precision),
        ],
        1,
    );
    let ready = u8::from(serving::model().is_ok());
    page.gauge("ready", "Whether a model answers.", ready);
    let busy = u8::from(serving::progress().is_some());
    page.gauge("setting_up", "Whether a model is being set up.", busy);
    let public = u8::from(access::is_public());
    page.gauge("public", "Whether anyone may use the model.", public);
}

fn of_the_work(page: &mut Page) {
    let now = jobs::at_once();
    page.gauge("jobs_running", "Jobs that share the passes.", now.running);
    page.gauge("jobs_waiting", "Jobs that wait for a place.", now.waiting);
    page.gauge("jobs_kept", "Ended jobs that can be read.", now.kept);
    COUNTS.with_borrow(|counts| {
        page.head("jobs_total", "counter", "Jobs that have ended.");
        for (end, count) in ENDS.iter().zip(counts.ended) {
            page.line("jobs_total", &[("finish", end)], count);
        }
        page.head(
            "jobs_refused_total",
            "counter",
            "Jobs that were not taken in.",
        );
        page.line("jobs_refused_total", &[], counts.refused);
        page.head("tokens_total", "counter", "Tokens of jobs that have ended.");
        page.line("tokens_total", &[("kind", "prompt")], counts.prompt_tokens);
        let completions = counts.completion_tokens;
        page.line("tokens_total", &[("kind", "completion")], completions);
        page.head("instructions_total", "counter", "What those jobs took.");
        page.line("instructions_total", &[], counts.instructions);
        let since = counts.since / 1_000_000_000;
        page.gauge("start_time_seconds", "When counting began.", since);
    });
}

fn of_the_canister(page: &mut Page) {
    let balance = canister_cycle_balance();
    page.gauge("cycles", "Cycles that the canister has.", balance);
    let floor = quotas::current().cycles_floor;
    let what = "Cycles below which no new work is taken.";
    page.gauge("cycles_floor", what, floor);
    page.gauge("heap_bytes", "Memory of the module.", heap());
    let stable = ic_cdk::stable::stable_size() * WASM_PAGE;
    page.gauge("stable_bytes", "Stable memory.", stable);
    let weights = serving::model().map_or(0, |model| model.memory());
    page.gauge("weights_bytes", "Weights in the module's memory.", weights);
}

/// Bytes of the module's own memory.
fn heap() -> u64 {
    #[cfg(target_arch = "wasm32")]
    let pages = core::arch::wasm32::memory_size(0) as u64;
    #[cfg(not(target_arch = "wasm32"))]
    let pages = 0;
    pages * WASM_PAGE
}

/// A text that grows; all names begin alike.
#[derive(Default)]
struct Page(String);

impl Page {
    fn gauge(&mut self, name: &str, what: &str, value: impl Display) {
        self.head(name, "gauge", what);
        self.line(name, &[], value);
    }

    fn head(&mut self, name: &str, kind: &str, what: &str) {
        // Writing into a text does not fail.
        let _ = writeln!(self.0, "# HELP icgpt_{name} {what}");
        let _ = writeln!(self.0, "# TYPE icgpt_{name} {kind}");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        let shown: Vec<String> = labels
            .iter()
            .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
            .collect();
        let shown = match shown.join(",") {
            none if none.is_empty() => none,
            some => format!("{{{some}}}"),
        };
        let _ = writeln!(self.0, "icgpt_{name}{shown} {value}");
    }
}

fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_the_format() {
        let mut page = Page::default();
        page.gauge("cycles", "Cycles.", 3_000_000_000_000_u128);
        page.line("info", &[("a", "b\\\"\n"), ("c", "")], 1);
        assert_eq!(
            page.0,
            "# HELP icgpt_cycles Cycles.\n# TYPE icgpt_cycles gauge\nicgpt_cycles 3000000000000\n\
             icgpt_info{a=\"b\\\\\\\"\\n\",c=\"\"} 1\n"
        );
    }

    #[test]
    fn every_end_is_counted_under_its_name() {
        let ends = [
            Finish::Stop,
            Finish::Length,
            Finish::Context,
            Finish::Cancelled,
            Finish::Failed("x".into()),
        ];
        for (number, end) in ends.iter().enumerate() {
            ended(end, 2, 3, 5);
            COUNTS.with_borrow(|counts| {
                assert_eq!(counts.ended.iter().sum::<u64>(), number as u64 + 1);
                assert_eq!(counts.ended[number], 1, "{}", ENDS[number]);
            });
        }
        COUNTS.with_borrow(|counts| {
            let tokens = (counts.prompt_tokens, counts.completion_tokens);
            assert_eq!((tokens, counts.instructions), ((10, 15), 25));
        });
    }
}
