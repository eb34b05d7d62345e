//! Async functions, polled by hand.

use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

/// Ready when it is asked for the second time.
struct Later(bool);

impl Future for Later {
    type Output = u64;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<u64> {
        if std::mem::replace(&mut self.0, true) { Poll::Ready(leaf::stir(1, 2)) } else { Poll::Pending }
    }
}

async fn innermost(value: u64) -> u64 {
    let later = Later(false).await;
    leaf::stir(later, value)
}

async fn between<T: Into<u64>>(value: T) -> u64 {
    let value = value.into();
    let first = innermost(value).await;
    let second = async { innermost(first).await ^ value }.await;
    leaf::mix(&[first, second])
}

async fn outermost(values: Vec<u8>) -> u64 {
    let mut total = 0;
    for value in values {
        total ^= between(value).await ^ between(u32::from(value)).await;
        let boxed: Pin<Box<dyn Future<Output = u64>>> = Box::pin(innermost(total));
        total ^= boxed.await;
    }
    total
}

#[inline(never)]
pub fn run(seed: u64) -> u64 {
    let mut future = pin!(outermost(seed.to_le_bytes().to_vec()));
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
}
