//! The program `tidegate`.

#[cfg(feature = "unrecorded")]
compile_error!("`tidegate` always records; the feature `unrecorded` is for the program `tidegate-unrecorded`");

fn main() -> std::process::ExitCode {
    tidegate::main()
}
