//! `ctrfs MOUNTPOINT`: arguments in, a mount in the background out.

use clap::Parser;
use ctrfs::cli::Arguments;
use ctrfs::daemon;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.tree {
        print!("{}", ctrfs::tree::reference());
        return ExitCode::SUCCESS;
    }
    match daemon::run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ctrfs: {error}");
            ExitCode::FAILURE
        }
    }
}
