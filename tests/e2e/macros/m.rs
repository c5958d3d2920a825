//! Macros that look at files, variables and directories.
extern crate proc_macro;
use proc_macro::TokenStream;
use std::fs;
fn text(t: TokenStream) -> String { t.to_string().trim_matches('"').to_string() }
fn literal(s: String) -> TokenStream { format!("{s:?}").parse().unwrap() }
/// A file's content, as sqlx reads its offline data: rustc is told nothing of it.
#[proc_macro] pub fn content(t: TokenStream) -> TokenStream { literal(fs::read_to_string(text(t)).unwrap_or("nothing".into())) }
/// As askama and include_dir do: canonical path first.
#[proc_macro] pub fn canonical_content(t: TokenStream) -> TokenStream {
    literal(fs::read_to_string(fs::canonicalize(text(t)).unwrap()).unwrap())
}
#[proc_macro] pub fn canonical(t: TokenStream) -> TokenStream { literal(fs::canonicalize(text(t)).unwrap().display().to_string()) }
#[proc_macro] pub fn target(t: TokenStream) -> TokenStream { literal(fs::read_link(text(t)).unwrap().display().to_string()) }
#[proc_macro] pub fn size(t: TokenStream) -> TokenStream { literal(fs::metadata(text(t)).unwrap().len().to_string()) }
/// As rust-embed does: when the file was changed last.
#[proc_macro] pub fn modified(t: TokenStream) -> TokenStream {
    literal(format!("{:?}", fs::metadata(text(t)).unwrap().modified().unwrap()))
}
#[proc_macro] pub fn modified_of_link(t: TokenStream) -> TokenStream {
    literal(format!("{:?}", fs::symlink_metadata(text(t)).unwrap().modified().unwrap()))
}
#[proc_macro] pub fn permissions(t: TokenStream) -> TokenStream {
    literal(format!("{:?}", fs::metadata(text(t)).unwrap().permissions()))
}
/// The same of a file that is open, past Rust's library: stat(3type), seconds.
#[proc_macro] pub fn modified_by_fstat(t: TokenStream) -> TokenStream {
    extern "C" { fn fstat64(fd: i32, to: *mut i64) -> i32; }
    let (file, mut to) = (fs::File::open(text(t)).unwrap(), [0; 32]);
    assert_eq!(unsafe { fstat64(std::os::fd::AsRawFd::as_raw_fd(&file), to.as_mut_ptr()) }, 0);
    literal(to[11].to_string())
}
#[proc_macro] pub fn kind(t: TokenStream) -> TokenStream {
    literal(match fs::symlink_metadata(text(t)) { Err(_) => "none".into(), Ok(m) => format!("{:?}", m.file_type().is_dir()) })
}
#[proc_macro] pub fn names(t: TokenStream) -> TokenStream {
    let mut names: Vec<_> = fs::read_dir(text(t)).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    literal(names.join(","))
}
/// As fluent-templates does: which of the names are files, which directories, without a look at any.
#[proc_macro] pub fn kinds(t: TokenStream) -> TokenStream {
    let entries = fs::read_dir(text(t)).unwrap().map(|e| e.unwrap());
    let mut kinds: Vec<_> = entries.map(|e| format!("{:?} {:?}", e.file_name(), e.file_type().unwrap())).collect();
    kinds.sort();
    literal(kinds.join(","))
}
#[proc_macro] pub fn variable(t: TokenStream) -> TokenStream { literal(std::env::var(text(t)).unwrap_or("unset".into())) }
/// The content of the file that a variable names.
#[proc_macro] pub fn named(t: TokenStream) -> TokenStream { literal(fs::read_to_string(std::env::var(text(t)).unwrap()).unwrap()) }
/// Where the compiler lies.
#[proc_macro] pub fn program(_: TokenStream) -> TokenStream { literal(std::env::current_exe().unwrap().display().to_string()) }
#[proc_macro] pub fn cwd(_: TokenStream) -> TokenStream { literal(std::env::current_dir().unwrap().display().to_string()) }
/// As dotenvy does: the file is looked for in every directory above.
fn above(mut place: std::path::PathBuf, name: &str) -> TokenStream {
    loop {
        if let Ok(found) = fs::read_to_string(place.join(name)) { return literal(found); }
        if !place.pop() { return literal("none".into()); }
    }
}
#[proc_macro] pub fn above_cwd(t: TokenStream) -> TokenStream { above(std::env::current_dir().unwrap(), &text(t)) }
#[proc_macro] pub fn above_canonical(t: TokenStream) -> TokenStream { above(fs::canonicalize("src").unwrap(), &text(t)) }
#[proc_macro] pub fn write(t: TokenStream) -> TokenStream {
    let t = text(t);
    fs::write(&t, "made by a macro\n").unwrap();
    literal(t)
}
/// A file's content by way of a link, and of a directory, that are there no longer when the compiler has ended.
#[proc_macro] pub fn content_by_a_link(t: TokenStream) -> TokenStream {
    let link = format!("link{}", std::process::id());
    std::os::unix::fs::symlink(text(t), &link).unwrap();
    let found = fs::read_to_string(&link).unwrap();
    fs::remove_file(&link).unwrap();
    literal(found)
}
#[proc_macro] pub fn content_out_of_a_directory(t: TokenStream) -> TokenStream {
    let made = format!("made{}", std::process::id());
    fs::create_dir(&made).unwrap();
    let found = fs::read_to_string(format!("{made}/../{}", text(t))).unwrap();
    fs::remove_dir(&made).unwrap();
    literal(found)
}
#[proc_macro] pub fn make_directory(t: TokenStream) -> TokenStream {
    fs::create_dir_all(text(t)).unwrap();
    literal("made".into())
}
/// A file's content, as sqlite and cargo's locks open it.
#[proc_macro] pub fn locked_content(t: TokenStream) -> TokenStream {
    let file = fs::OpenOptions::new().read(true).write(true).create(true).open(text(t)).unwrap();
    literal(std::io::read_to_string(file).unwrap())
}
#[proc_macro] pub fn append(t: TokenStream) -> TokenStream {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(text(t)).unwrap();
    let old = std::io::read_to_string(&file).unwrap();
    std::io::Write::write_all(&mut file, b"more").unwrap();
    literal(old)
}
