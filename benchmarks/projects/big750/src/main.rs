//! The work is in the dependencies.

fn main() {
    println!("{}", std::any::type_name::<bevy::prelude::App>());
}
