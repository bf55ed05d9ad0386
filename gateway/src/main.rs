//! The program `tidegate`.

// Whatever features were asked for, of whatever package.
const _: () =
    assert!(tidegate_recorder::RECORDS, "`tidegate` always records; only `tidegate-unrecorded` is built otherwise");

fn main() -> std::process::ExitCode {
    tidegate::main()
}
