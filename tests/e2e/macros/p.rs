//! Asks which machine it runs on, how large that is, and where another one is.
extern crate proc_macro;
use proc_macro::TokenStream;
use std::os::raw::{c_char, c_int};
unsafe extern "C" { fn gethostname(to: *mut c_char, size: usize) -> c_int; fn uname(to: *mut c_char) -> c_int; }
/// By the kernel's file.
#[proc_macro] pub fn by_file(_: TokenStream) -> TokenStream {
    format!("{:?}", std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim()).parse().unwrap()
}
/// As whoami does.
#[proc_macro] pub fn by_gethostname(_: TokenStream) -> TokenStream {
    let mut name = [0 as c_char; 256];
    unsafe { gethostname(name.as_mut_ptr(), 255) };
    text(&name)
}
/// As sysinfo does.
#[proc_macro] pub fn by_uname(_: TokenStream) -> TokenStream {
    let mut names = [0 as c_char; 6 * 65];
    unsafe { uname(names.as_mut_ptr()) };
    text(&names[65..130])
}
/// For threads, as rayon and tokio do; most write down no more than what these found.
#[proc_macro] pub fn by_available_parallelism(_: TokenStream) -> TokenStream {
    format!("{:?}", std::thread::available_parallelism().unwrap().to_string()).parse().unwrap()
}
/// As num_cpus::get_physical does.
#[proc_macro] pub fn by_cpuinfo(_: TokenStream) -> TokenStream {
    format!("{:?}", std::fs::read_to_string("/proc/cpuinfo").unwrap()).parse().unwrap()
}
/// By the C library, which has a socket of its own where it asks a server.
#[proc_macro] pub fn by_lookup(_: TokenStream) -> TokenStream {
    let found = std::net::ToSocketAddrs::to_socket_addrs(&("localhost", 80)).is_ok();
    format!("{:?}", found.to_string()).parse().unwrap()
}
fn text(name: &[c_char]) -> TokenStream {
    let bytes: Vec<u8> = name.iter().map(|&c| c as u8).take_while(|&c| c != 0).collect();
    format!("{:?}", String::from_utf8(bytes).unwrap()).parse().unwrap()
}
