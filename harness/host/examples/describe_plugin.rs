//! Prints what a plugin holds, as one line of JSON: `describe_plugin describe-plugin FILE`.
//!
//! Takes the place of the program where it is not built: tests run it as the child that describes plugins.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [command, file] if command == equivbench_host::DESCRIBE_COMMAND => {
            equivbench_host::describe_main(Path::new(file))
        }
        _ => {
            eprintln!(
                "usage: describe_plugin {} FILE",
                equivbench_host::DESCRIBE_COMMAND
            );
            ExitCode::from(2)
        }
    }
}
