//! What the host lends: a file to read, at any offset, and one to write, at its end.
//!
//! A host that can't read ends the call with an error of its own; the module is not used again then.

use std::mem::MaybeUninit;

use icgpt_engine::{Sink, Source};

#[cfg(target_arch = "wasm32")]
mod imports {
    #[link(wasm_import_module = "host")]
    unsafe extern "C" {
        /// Fills `len` bytes from `offset` on.
        pub fn read(offset: u64, to: *mut u8, len: usize);
        /// Appends bytes; 0 when there is no room for them.
        pub fn write(from: *const u8, len: usize) -> u32;
    }
}

/// There is a host under WebAssembly only; elsewhere the crate is checked, but not run.
#[cfg(not(target_arch = "wasm32"))]
mod imports {
    pub unsafe fn read(_offset: u64, to: *mut u8, len: usize) {
        // SAFETY: the caller owns these bytes.
        unsafe { to.write_bytes(0, len) }
    }
    pub unsafe fn write(_from: *const u8, _len: usize) -> u32 {
        0
    }
}

/// The file that the host lends for reading.
pub struct HostFile {
    /// Its length in bytes.
    pub len: u64,
}

impl Source for HostFile {
    fn len(&self) -> u64 {
        self.len
    }

    fn read(&self, offset: u64, buf: &mut [u8]) {
        // SAFETY: the slice covers the bytes that are written.
        unsafe { imports::read(offset, buf.as_mut_ptr(), buf.len()) }
    }

    fn read_new<'a>(&self, offset: u64, buf: &'a mut [MaybeUninit<u8>]) -> &'a mut [u8] {
        let (to, len) = (buf.as_mut_ptr().cast(), buf.len());
        // SAFETY: the slice covers the bytes that are written, and all of them are.
        unsafe {
            imports::read(offset, to, len);
            std::slice::from_raw_parts_mut(to, len)
        }
    }
}

/// The file that the host lends for writing.
pub struct HostSink;

impl Sink for HostSink {
    fn append(&mut self, bytes: &[u8]) -> bool {
        // SAFETY: the slice covers the bytes that are read.
        unsafe { imports::write(bytes.as_ptr(), bytes.len()) != 0 }
    }
}
