//! When a file that is open was changed last.  A library of its own, for what a macro may do is judged by what it is linked with.
extern crate proc_macro;
use proc_macro::TokenStream;
/// When a file that is open was changed last.
#[proc_macro] pub fn modified(t: TokenStream) -> TokenStream {
    let file = std::fs::File::open(t.to_string().trim_matches('"')).unwrap();
    format!("\"{:?}\"", file.metadata().unwrap().modified().unwrap()).parse().unwrap()
}
