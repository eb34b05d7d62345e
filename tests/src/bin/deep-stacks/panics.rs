//! Paths through panics: while a thread unwinds, and in the hook before it does.

use std::{
    cell::Cell,
    hint::black_box,
    panic::{self, PanicHookInfo, catch_unwind},
};

use crate::bottom::bottom;

thread_local! {
    static BOTTOM_IN_HOOK: Cell<bool> = const { Cell::new(false) };
}

/// Instead of the default one, which would print each panic.
pub fn install_hook() {
    panic::set_hook(Box::new(on_panic));
}

#[inline(never)]
fn on_panic(_: &PanicHookInfo<'_>) {
    if BOTTOM_IN_HOOK.take() {
        black_box(bottom());
    }
}

struct BottomWhenDropped(bool);

impl Drop for BottomWhenDropped {
    #[inline(never)]
    fn drop(&mut self) {
        if self.0 {
            black_box(bottom());
        }
    }
}

#[inline(never)]
fn risky(guarded: bool) -> u64 {
    let guard = BottomWhenDropped(black_box(guarded));
    if black_box(true) {
        panic!("on purpose");
    }
    u64::from(guard.0)
}

#[inline(never)]
pub fn through_unwinding() -> u64 {
    black_box(u64::from(catch_unwind(|| risky(true)).is_err()))
}

#[inline(never)]
pub fn through_hook() -> u64 {
    BOTTOM_IN_HOOK.set(true);
    black_box(u64::from(catch_unwind(|| risky(false)).is_err()))
}
