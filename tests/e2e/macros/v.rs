//! All variables.  Apart for the same reason.
extern crate proc_macro;
use proc_macro::TokenStream;
/// Every variable that begins so, by env::vars(), which asks for none of them by name.
#[proc_macro] pub fn variables(t: TokenStream) -> TokenStream {
    let start = t.to_string().trim_matches('"').to_string();
    let mut found: Vec<_> = std::env::vars().filter(|(n, _)| n.starts_with(&start)).map(|(n, v)| n + "=" + &v).collect();
    found.sort();
    format!("{:?}", found.join(" ")).parse().unwrap()
}
