//! Macros that leave files in a build script's directory, for later ones to find.
extern crate proc_macro;
use proc_macro::TokenStream;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};
fn text(t: TokenStream) -> String { t.to_string().trim_matches('"').to_string() }
fn literal(s: String) -> TokenStream { format!("{s:?}").parse().unwrap() }
/// As tauri and sailfish do: makes the file if it is not there, and sets its time back.
#[proc_macro] pub fn made(t: TokenStream) -> TokenStream {
    let path = text(t);
    let path = Path::new(&path);
    if !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let _lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path.with_extension("lock")).unwrap();
        let long = path.with_extension("long");
        fs::write(&long, vec![b'x'; 100_000]).unwrap();
        fs::write(path, "made").unwrap();
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(946_684_800)).unwrap();
    }
    literal(fs::read_to_string(path).unwrap())
}
