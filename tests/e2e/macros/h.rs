//! Looks at the clock.
extern crate proc_macro;
use proc_macro::TokenStream;
use std::time::{Instant, SystemTime};
/// What compile-time and build-time do; here only the year, so that two compiles come out alike.
#[proc_macro] pub fn now(_: TokenStream) -> TokenStream {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    format!("\"{}\"", seconds / 31_556_952).parse().unwrap()
}
/// How long something took does not show in what it made.
#[proc_macro] pub fn quickly(t: TokenStream) -> TokenStream {
    let start = Instant::now();
    if start.elapsed().as_secs() < 3600 { t } else { TokenStream::new() }
}
