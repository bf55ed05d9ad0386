//! The same program with the pause points of the fault tests; a name of its own, so that it is never mistaken for the
//! real one.

const _: () = assert!(tidegate_recorder::RECORDS);

fn main() -> std::process::ExitCode {
    tidegate::main()
}
