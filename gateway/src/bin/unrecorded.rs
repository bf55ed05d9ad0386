//! The same program with recording off: what `deploy/bench` compares the real one with, and of no other use.

fn main() -> std::process::ExitCode {
    tidegate::main()
}
