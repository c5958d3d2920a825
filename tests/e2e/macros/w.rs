//! What is linked into a macro holds for all in its library: these are apart.
extern crate proc_macro;
use proc_macro::TokenStream;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
fn text(t: TokenStream) -> String { t.to_string().trim_matches('"').to_string() }
fn literal(s: String) -> TokenStream { format!("{s:?}").parse().unwrap() }
/// As rust-embed does; include_dir tells when it was read, too.
#[proc_macro] pub fn created(t: TokenStream) -> TokenStream {
    literal(format!("{:?}", fs::metadata(text(t)).unwrap().created().unwrap()))
}
#[proc_macro] pub fn accessed(t: TokenStream) -> TokenStream {
    literal(format!("{:?}", fs::metadata(text(t)).unwrap().accessed().unwrap()))
}
/// In which the paths do not show.
#[proc_macro] pub fn arguments(_: TokenStream) -> TokenStream {
    let mut hasher = DefaultHasher::new();
    std::env::args().collect::<Vec<_>>().hash(&mut hasher);
    literal(hasher.finish().to_string())
}
/// As askama and pest do before they read a file.
#[proc_macro] pub fn whether(t: TokenStream) -> TokenStream {
    let path = std::path::PathBuf::from(text(t));
    literal(format!("{} {} {:?}", path.is_file(), path.is_dir(), path.exists().then(|| fs::read_to_string(&path).ok())))
}
