//! The allocator, set so that what a burst took goes back to the system.
//!
//! jemalloc keeps freed pages for ten seconds by default and gives them back only when something is allocated or freed
//! again: a node that was busy and fell quiet would keep its largest size for ever. A background thread that returns
//! them after a second costs nothing measurable and keeps memory at what the connections need.

/// The process' allocator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// jemalloc reads its options from the symbol of this name before the first allocation.
///
/// The symbol is a C `const char *`: a reference to the first byte of text that ends with a zero byte has the same form.
// SAFETY: no other item of this name exists in the program (jemalloc itself only refers to it, weakly), the type has the
// size and form of the pointer that jemalloc expects, and what it points to is static and ends with a zero byte.
#[expect(unsafe_code, reason = "jemalloc takes options from a symbol only")]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub(crate) static OPTIONS: Option<&'static u8> =
    Some(&b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0"[0]);
