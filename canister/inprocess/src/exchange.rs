//! Bytes that pass between host and module: what a call takes, and what it gives.

use std::cell::RefCell;

use crate::failure::Failure;

thread_local! {
    static INPUT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    static ANSWER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Makes room for what the next call takes, and says where; null when memory is short.
#[unsafe(no_mangle)]
pub extern "C" fn input(len: usize) -> *mut u8 {
    INPUT.with_borrow_mut(|input| {
        input.clear();
        if input.try_reserve_exact(len).is_err() {
            return std::ptr::null_mut();
        }
        input.resize(len, 0);
        input.as_mut_ptr()
    })
}

/// Where the answer of the last call lies.
#[unsafe(no_mangle)]
pub extern "C" fn answer() -> *const u8 {
    ANSWER.with_borrow(Vec::as_ptr)
}

/// Its length in bytes.
#[unsafe(no_mangle)]
pub extern "C" fn answer_len() -> usize {
    ANSWER.with_borrow(Vec::len)
}

/// What the host has written for this call.
pub fn taken() -> Vec<u8> {
    INPUT.take()
}

/// Ends a call: keeps the bytes that it gives, and says how it went. `work` adds to an empty answer.
pub fn give(work: impl FnOnce(&mut Vec<u8>) -> Result<i32, Failure>) -> i32 {
    let mut answer = ANSWER.take();
    answer.clear();
    let status = work(&mut answer).unwrap_or_else(|failure| {
        let (kind, text) = failure.told();
        answer = text.into_bytes();
        -kind
    });
    ANSWER.set(answer);
    status
}
