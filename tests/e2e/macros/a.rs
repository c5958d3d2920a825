//! When a file was read last, as Unix says it.  A library of its own, for what a macro may do is judged by what it is linked with.
extern crate proc_macro;
use proc_macro::TokenStream;
use std::os::unix::fs::MetadataExt;
#[proc_macro] pub fn atime(t: TokenStream) -> TokenStream {
    format!("\"{}\"", std::fs::metadata(t.to_string().trim_matches('"')).unwrap().atime()).parse().unwrap()
}
